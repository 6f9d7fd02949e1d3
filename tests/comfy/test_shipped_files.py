"""Help pages, pictures, translations, workflows and the schema snapshot cover every node, and nothing else."""

import json
import re
import sys
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
sys.path.append(str(PACK / "scripts"))
from node_texts import PREFIX, schema_of, texts_of  # noqa: E402

DOCS = PACK / "web" / "docs"
WORKFLOWS = sorted((PACK / "example_workflows").glob("*.json"))
WRITTEN_BY_THE_INTERFACE = {"MarkdownNote", "Note"}
FILE_LIST = "/tencent/DisCa/tree/main"  # of files whose folder in it is not known
HINT = "run scripts/node_texts.py and look at the difference"


@pytest.fixture(scope="module")
def infos(comfy_nodes) -> dict[str, dict]:
    """What /object_info says of our nodes, by id."""
    nodes = comfy_nodes.NODE_CLASS_MAPPINGS
    return {key: node.GET_NODE_INFO_V1() for key, node in nodes.items() if key.startswith(PREFIX)}


def read(path: Path):
    """The JSON in a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def test_schemas_are_those_that_saved_workflows_know(infos):
    now = {key: schema_of(info) for key, info in infos.items()}
    assert json.dumps(now) == json.dumps(read(PACK / "tests" / "schemas.json")), HINT  # also the order of inputs


def test_english_texts_are_those_of_the_schemas(infos):
    assert read(PACK / "locales" / "en" / "nodeDefs.json") == {key: texts_of(i) for key, i in infos.items()}, HINT


def test_chinese_texts_cover_the_schemas(infos):
    chinese = read(PACK / "locales" / "zh" / "nodeDefs.json")
    assert shape(chinese) == shape({key: texts_of(info) for key, info in infos.items()})


def shape(texts):
    """The keys of nested texts."""
    return {key: shape(value) for key, value in texts.items()} if isinstance(texts, dict) else None


@pytest.mark.parametrize("language", ["en", "zh"])
def test_texts_hold_no_signs_that_the_translator_reads(language):
    text = (PACK / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8")
    values = re.findall(r'": "((?:[^"\\]|\\.)*)"', text)
    assert values and not [value for value in values if re.search(r"[{}@|]", value)]


def test_every_node_has_help_pages_and_nothing_else_has(infos):
    assert {path.stem for path in DOCS.glob("*.md")} == set(infos)
    assert {path.parent.name for path in DOCS.glob("*/zh.md")} == set(infos)


def test_help_pages_tell_of_every_input_and_show_pictures_that_are_there(infos):
    for key, info in infos.items():
        for page in (DOCS / f"{key}.md", DOCS / key / "zh.md"):
            text = page.read_text(encoding="utf-8").replace("<wbr>", "")  # where a long word may break
            names = [name["name"] for name in texts_of(info)["inputs"].values()] + list(info["output_name"])
            assert not [name for name in names if name not in text], page
            pictures = re.findall(r"!\[.+\]\((.+)\)", text)
            assert pictures == [f"images/{key}.png"]  # both languages: the interface resolves it from web/docs
            assert 0 < (DOCS / pictures[0]).stat().st_size < 150_000


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_has_a_thumbnail_and_known_nodes(path, comfy_nodes):
    workflow = read(path)
    nodes = [node for node in workflow["nodes"] if node["type"] not in WRITTEN_BY_THE_INTERFACE]
    assert path.with_suffix(".jpg").stat().st_size > 0
    assert not [node["type"] for node in nodes if node["type"] not in comfy_nodes.NODE_CLASS_MAPPINGS]
    assert all(node["properties"]["cnr_id"] in ("disca", "comfy-core") for node in nodes)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_says_where_its_files_come_from(path):
    for node in read(path)["nodes"]:
        models = node.get("properties", {}).get("models", [])
        files = [value for value in node.get("widgets_values", []) if str(value).endswith(".safetensors")]
        if node["type"] not in WRITTEN_BY_THE_INTERFACE:
            assert [model["name"] for model in models] == files
        assert all(model["url"].startswith("https://huggingface.co/") for model in models)
        assert all(model["url"].endswith(("/" + model["name"], FILE_LIST)) for model in models)


def test_versions_in_the_workflows_are_the_packs():
    version = re.search(r'^version = "(.+)"', (PACK / "pyproject.toml").read_text(), re.MULTILINE)[1]
    ours = (node for path in WORKFLOWS for node in read(path)["nodes"] if node["type"].startswith(PREFIX))
    assert {node["properties"]["ver"] for node in ours} == {version}
