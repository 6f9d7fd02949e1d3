"""The notes beside the HunyuanVideo workflows: headings, which the opened template shows large enough, say it all."""

from graph_parts import (
    BYT5,
    CLIP_L,
    DISCA,
    DISCA_10,
    DISCA_15,
    DISTILLED_15,
    FP8_15,
    LLAVA,
    MEANFLOW_10,
    PREDICTOR_10,
    PREDICTOR_15,
    QWEN,
    SIGLIP,
    UNCACHED_10,
    UNCACHED_15,
    VAE_10,
    VAE_15,
    links,
)

LICENCE = """# Licence: not in the EU, UK or South Korea

The weights come under the Tencent Hunyuan Community License, which does not apply there. Read it before use."""
FILES_10 = links((MEANFLOW_10, PREDICTOR_10, CLIP_L, LLAVA, VAE_10))
FILES_15 = links((DISTILLED_15, PREDICTOR_15, QWEN, BYT5, SIGLIP, VAE_15))
SMALL_15 = f"""take [{FP8_15.name}]({FP8_15.url}), half as large, in place of the fp16 file"""
ALL_FILES = f"""All DisCa weights: [{DISCA}](https://huggingface.co/{DISCA}/tree/main)."""
PROMPTS = """Write prompts long and in detail: the authors have a language model rewrite theirs."""


def download(count: str, files: str) -> str:
    """The step that every note begins with."""
    return f"# 1. Put these {count} files in place\n\n{files}\n\n{ALL_FILES}"


NOTE_10_DISCA = f"""# HunyuanVideo 1.0 with DisCa: 8 of 20 steps run in full

On the other 12 a small Predictor stands in for the transformer.

{download("five", FILES_10)}

# 2. Write a prompt and press Run

{PROMPTS} At the end *SamplerCustomAdvanced* shows how many calls were full and predicted, and what they took; so does \
ComfyUI's log.

By the paper's times this is 2.4 times as fast as the same 20 steps without the Predictor (232 s to 98 s), and 11.8 \
times as fast as 50 steps with CFG. Encoding, decoding and loading come on top.

# 3. Compare

- Without the Predictor: open **{UNCACHED_10}**, or select *DisCa Apply Predictor* and press Ctrl+B.
- More quality: another preset, 10 anchors, N=3 or N=2.
- Short of memory: *weight_dtype* of the model *fp8_e4m3fn*, *cache_device* *cpu*.

{LICENCE}
"""

NOTE_10_MEANFLOW = f"""# HunyuanVideo 1.0 without the Predictor: all 20 steps in full

*DisCa Apply Predictor* is bypassed. This is what DisCa is to be compared with.

{download("five", FILES_10)}

# 2. Press Run

About 5 times as fast as 50 steps with CFG (232 s against 1155 s in the paper).

# 3. Compare

- With the Predictor: open **{DISCA_10}**, or select *DisCa Apply Predictor* and press Ctrl+B.
- The seed is fixed: what differs between the two videos is the Predictor's doing.

{LICENCE}
"""

NOTE_15_DISCA = f"""# HunyuanVideo 1.5 with DisCa: 4 of 8 steps run in full

On the other 4 a small Predictor stands in for the transformer.

{download("six", FILES_15)}

Small card: {SMALL_15}.

# 2. Choose an image and press Run

{PROMPTS} *What each step cost* then shows the calls, their times and the speed-up: at most about 2 times, as half of \
the steps stay full (125 s to 64 s in the paper). Decoding runs out of memory: use *VAE Decode (Tiled)*.

# 3. Compare

- Without the Predictor: open **{UNCACHED_15}**, or select *DisCa Apply Predictor* and press Ctrl+B.
- More quality: 12 steps in *DisCa Sample*, with the preset for 12 steps, which is ours.

{LICENCE}
"""

NOTE_15_MEANFLOW = f"""# HunyuanVideo 1.5 without the Predictor: all 8 steps in full

*DisCa Apply Predictor* is bypassed. This is what DisCa is to be compared with.

{download("six", FILES_15)}

# 2. Choose an image and press Run

*What each step cost* then shows 8 full calls and their time. DisCa can be at most about 2 times as fast as this.

# 3. Compare

- With the Predictor: open **{DISCA_15}**, or select *DisCa Apply Predictor* and press Ctrl+B.
- The seed is fixed: what differs between the two videos is the Predictor's doing.

{LICENCE}
"""
