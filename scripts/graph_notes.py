"""The notes beside the HunyuanVideo workflows."""

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

FILES_10 = links((MEANFLOW_10, PREDICTOR_10, CLIP_L, LLAVA, VAE_10))
FILES_15 = links((DISTILLED_15, PREDICTOR_15, QWEN, BYT5, SIGLIP, VAE_15))
SMALL_15 = f"""take [{FP8_15.name}]({FP8_15.url}), half as large, in place of the fp16 file"""
AUTHORS_FILES = f"""All DisCa weights: [{DISCA}](https://huggingface.co/{DISCA}/tree/main). The weights come under \
their authors' licence, the Tencent Hunyuan Community License: read it before use."""

NOTE_10_DISCA = f"""## HunyuanVideo 1.0, text to video, with DisCa

Of 20 MeanFlow steps, 8 run the whole transformer. On the other 12 a small Predictor stands in for it.

### Files

{FILES_10}

{AUTHORS_FILES}

### What to expect

The paper's 11.8 times is measured against 50 steps with CFG. Against the same 20 steps without the Predictor, its \
times give 2.4 times (232 s to 98 s). Encoding, decoding and loading come on top.

The log says how many calls were full and predicted, and how long each took.

### To compare

- Open **{UNCACHED_10}**: the same graph and seed, the Predictor bypassed. Or select *DisCa Apply \
Predictor* here and press Ctrl+B.
- More quality: take the 10 anchors, N=3 or N=2 preset.
- Short of memory: set *weight_dtype* of the model to *fp8_e4m3fn*, *cache_device* to *cpu*.
- Write prompts long and in detail: the authors have a language model rewrite theirs.
"""

NOTE_10_MEANFLOW = f"""## HunyuanVideo 1.0, text to video, Restricted MeanFlow

All 20 MeanFlow steps run the whole transformer: *DisCa Apply Predictor* is bypassed. This is what DisCa is to be \
compared with.

### Files

{FILES_10}

{AUTHORS_FILES}

### What to expect

About 5 times as fast as 50 steps with CFG (232 s against 1155 s in the paper).

### To compare

- Select *DisCa Apply Predictor* and press Ctrl+B, or open **{DISCA_10}**: the same graph and seed, and \
12 of the 20 steps are predicted.
- The seed is fixed: what differs between the two videos is the Predictor's doing.
"""

NOTE_15_DISCA = f"""## HunyuanVideo 1.5, image to video, with DisCa

Of 8 steps of the step-distilled model, 4 run the whole transformer. On the other 4 a small Predictor stands in for it.

### Files

{FILES_15}

{AUTHORS_FILES}

### What to expect

At most about 2 times as fast as the same model without caching: half of the steps stay full \
(125 s to 64 s in the paper). The paper's 11.8 times is another comparison, HunyuanVideo 1.0 against 50 steps with CFG.

*What each step cost* shows the counts, the times and the speed-up after a run.

### To compare

- Open **{UNCACHED_15}**: the same graph and seed, the Predictor bypassed. Or select *DisCa Apply \
Predictor* here and press Ctrl+B.
- More quality: 12 steps in *DisCa Sample*, with the preset for 12 steps, which is ours.
- Small card: {SMALL_15}.
- Write prompts long and in detail: the authors have a language model rewrite theirs.
- Decoding runs out of memory: use *VAE Decode (Tiled)*.
"""

NOTE_15_MEANFLOW = f"""## HunyuanVideo 1.5, image to video, step-distilled

All 8 steps run the whole transformer: *DisCa Apply Predictor* is bypassed. This is what DisCa is to be compared with.

### Files

{FILES_15}

{AUTHORS_FILES}

### What to expect

*What each step cost* shows 8 full calls and their time. DisCa can be at most about 2 times as fast as this.

### To compare

- Select *DisCa Apply Predictor* and press Ctrl+B, or open **{DISCA_15}**: the same graph and seed, and \
4 of the 8 steps are predicted.
- The seed is fixed: what differs between the two videos is the Predictor's doing.
"""
