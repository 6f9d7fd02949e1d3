"""Prompts drawn from what /object_info offers: a graph that is right, then some of its inputs spoilt."""

import random

LATENTS = "RandomInputs"  # of tests/server/random_nodes.py, as the next ones
ENCODERS, ANYTHING = "RandomEncoders", "RandomAnything"
PROVIDERS = {  # link types that none of our nodes gives, or not alone
    "CONDITIONING": [(LATENTS, 0), (LATENTS, 1), ("DiscaToyPrompt", 0)],
    "LATENT": [(LATENTS, 2), ("EmptyHunyuanLatentVideo", 0), ("DiscaSample", 0)],
    "VAE": [(ENCODERS, 0)],
    "CLIP": [(ENCODERS, 1)],
    "CLIP_VISION": [(ENCODERS, 2)],
}
SMALL = {  # widgets whose allowed values would take hours
    "steps": (1, 8), "width": (16, 64), "height": (16, 64), "length": (1, 9), "frames": (1, 9), "batch_size": (1, 2),
    "iterations": (1, 2), "mse_iterations": (0, 2), "gan_iterations": (0, 1), "batch": (1, 2), "accumulate": (1, 2),
    "full_steps": (1, 4), "preview_steps": (1, 2), "rank": (1, 8), "depth": (1, 2), "size": (16, 128),
}  # fmt: skip
TRAINS = ("DiscaTrain", "DiscaBuild")  # seconds each: drawn less often
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")
TEXTS = [
    "", " ", "0", "0-3", "0 1 2", "0,,5", "3 1", "0-99999 " * 3000, "\ud800", "a\ud800b", "٠-٣", "\x00", "a\nb\rc",
    "\x1b[31mred", "x" * 300, "../../up", "/absolute", "sub\\name.safetensors",
    "con", "nul.txt", "toy://shapes", "toy://", "💥", "é",
    "{}", "[1, 2]", "%s %n {0}", "NaN", "null", "-1", "1e999", "name: [", "a: &b [*b]", "\u2028", "\u202eflip", ".",
    "..",
]  # fmt: skip
NUMBERS = [0, -1, 1, 0.5, -0.0, 1e-300, 1e-12, 1e308, -1e308, 2**31, 2**63, 2**64, 10**30, float("nan"), float("inf")]
NUMBERS += [float("-inf")]
OTHERS = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    {"__value__": 3},
    {"__value__": [1, 2]},
    {"a": {"b": {}}},
    [1, 2, 3],
    "text",
    7,
]


class Drawing:
    """One prompt in the making."""

    def __init__(self, offered: dict, chance: random.Random):
        self.offered, self.chance = offered, chance
        self.ours = sorted(key for key in offered if key.startswith("Disca"))
        self.prompt: dict[str, dict] = {}

    def draw(self) -> dict:
        """A graph that ends in one of our nodes, with none to four of its inputs spoilt."""
        weights = [0.25 if kind.startswith(TRAINS) else 1.0 for kind in self.ours]
        (target,) = self.chance.choices(self.ours, weights)
        last = self._node(target, depth=0)
        if not self.offered[target]["output_node"]:
            for output in range(len(self.offered[target]["output"])):
                self._add("PreviewAny", {"source": [last, output]})
        for _ in range(self.chance.choice([0, 1, 1, 1, 2, 4])):
            self._spoil()
        return self.prompt

    def _add(self, kind: str, inputs: dict) -> str:
        name = str(len(self.prompt) + 1)
        self.prompt[name] = {"class_type": kind, "inputs": inputs}
        return name

    def _node(self, kind: str, depth: int) -> str:
        schema, inputs = self.offered[kind]["input"], {}
        for name, spec in schema.get("required", {}).items():
            inputs |= self._input(name, spec, depth)
        for name, spec in schema.get("optional", {}).items():
            if self.chance.random() < 0.3:
                inputs |= self._input(name, spec, depth)
        return self._add(kind, inputs)

    def _input(self, name: str, spec: list, depth: int) -> dict:
        kind, settings = spec[0], spec[1] if len(spec) > 1 else {}
        if kind == "COMFY_DYNAMICCOMBO_V3":
            option = self.chance.choice(settings["options"])
            inputs = {name: option["key"]}
            for part in ("required", "optional"):
                for inner, inner_spec in option["inputs"].get(part, {}).items():
                    inputs |= self._input(f"{name}.{inner}", inner_spec, depth)
            return inputs
        if kind == "COMFY_AUTOGROW_V3":
            template = settings["template"]
            (spec,) = (spec for part in template["input"].values() for spec in part.values())  # required or optional
            prefix = template["prefix"]
            return {f"{name}.{prefix}{i}": self._link(spec[0], depth) for i in range(self.chance.randint(0, 2))}
        if kind in WIDGETS or isinstance(kind, list):
            return {name: self._value(name, kind, settings)}
        return {name: self._link(kind, depth)}

    def _link(self, kind: str, depth: int) -> list:
        choices = PROVIDERS.get(kind) or self._givers(kind)
        if depth > 2:
            choices = [choice for choice in choices if not self._takes_links(choice[0])] or choices[:1]
        node, output = self.chance.choice(choices)
        existing = [key for key, made in self.prompt.items() if made["class_type"] == node]
        if existing and self.chance.random() < 0.7:
            return [existing[0], output]
        return [self._node(node, depth + 1), output]

    def _givers(self, kind: str) -> list[tuple[str, int]]:
        """Our nodes with an output of this type, but for those that train."""
        quick = [node for node in self.ours if not node.startswith(TRAINS)]
        return [(node, i) for node in quick for i, given in enumerate(self.offered[node]["output"]) if given == kind]

    def _takes_links(self, node: str) -> bool:
        specs = self.offered[node]["input"].get("required", {}).values()
        return any(spec[0] not in WIDGETS and not isinstance(spec[0], list) for spec in specs)

    def _value(self, name: str, kind, settings: dict):
        options = kind if isinstance(kind, list) else settings.get("options")
        if options is not None:
            return self.chance.choice(options) if options else "none"
        default, short = settings.get("default"), name.rsplit(".", 1)[-1]
        if kind in ("STRING", "BOOLEAN"):
            return "toy://shapes" if short == "dataset" and self.chance.random() < 0.7 else default
        low, high = SMALL.get(short, (settings["min"], settings["max"]))
        if self.chance.random() < 0.6:
            return default if short not in SMALL else high
        return self.chance.randint(low, high) if kind == "INT" else self.chance.uniform(low, min(high, 10.0))

    def _spoil(self) -> None:
        """Changes one input of one of our nodes."""
        nodes = [node for node in self.prompt.values() if node["class_type"].startswith("Disca") and node["inputs"]]
        if not nodes:
            return
        node = self.chance.choice(nodes)
        name = self.chance.choice(sorted(node["inputs"]))
        if self.chance.random() < 0.1:
            del node["inputs"][name]
        elif isinstance(node["inputs"][name], list):
            node["inputs"][name] = self._odd_link()
        else:
            limits = self._limits(node["class_type"], name)
            node["inputs"][name] = self.chance.choice(self.chance.choice([TEXTS, NUMBERS, OTHERS, limits or NUMBERS]))

    def _limits(self, kind: str, name: str) -> list:
        """The least and the largest that a widget takes, and what lies next to them."""
        specs = self.offered[kind]["input"]
        flat = {**specs.get("required", {}), **specs.get("optional", {})}
        for outer, spec in list(flat.items()):
            for option in spec[1].get("options", []) if spec[0] == "COMFY_DYNAMICCOMBO_V3" else []:
                for part in option["inputs"].values():
                    flat |= {f"{outer}.{inner}": inner_spec for inner, inner_spec in part.items()}
        settings = flat.get(name, [None, {}])
        settings = settings[1] if len(settings) > 1 else {}
        if "min" not in settings:
            return []
        return [settings["min"], settings["max"], settings["min"] - 1, settings["max"] + 1, settings["max"] * 10]

    def _odd_link(self):
        """Another node's output, one that is not there, any value under any type, or no link at all."""
        anything = self._add(
            ANYTHING, {"kind": self.chance.choice(["none", "text", "number", "list", "dict", "object"])}
        )
        others = [[key, self.chance.randint(-1, 3)] for key in self.prompt]
        return self.chance.choice([[anything, 0], [anything, 0], self.chance.choice(others), ["9999", 0], *OTHERS])
