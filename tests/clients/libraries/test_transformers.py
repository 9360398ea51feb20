"""transformers, unmodified: a tokenizer and a configuration go to the Hub and come back."""

import json
import os

import pytest
from examiner import CALLS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, BertConfig, PreTrainedTokenizerFast
from transformers.utils import cached_file

WORDS = ["[UNK]", "[PAD]", "the", "hub", "serves", "files"]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture
def tokenizer():
    """A tokenizer of six words."""
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]")


def test_tokenizer(hub, new_id, tokenizer, tmp_path):
    CALLS["PreTrainedTokenizerFast.save_pretrained(push_to_hub)"] += 1
    tokenizer.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id=new_id, private=True)
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(hub.paths(new_id))
    CALLS["AutoTokenizer.from_pretrained"] += 1
    found = AutoTokenizer.from_pretrained(new_id, cache_dir=tmp_path / "cache")
    assert found.tokenize("the hub serves files quickly") == ["the", "hub", "serves", "files", "[UNK]"]
    assert found("hub files").input_ids == [3, 5]


def test_tokenizer_with_chat_templates(hub, new_id, tokenizer, tmp_path):
    """The templates but the default one are files of a folder that transformers lists."""
    tokenizer.chat_template = {"default": TEMPLATE, "tool_use": "TOOL" + TEMPLATE}
    CALLS["PreTrainedTokenizerFast.push_to_hub"] += 1
    tokenizer.push_to_hub(new_id, commit_message="Tokenizer")
    assert "additional_chat_templates/tool_use.jinja" in hub.paths(new_id)
    assert hub.history(new_id)[0][1] == "Tokenizer"
    found = AutoTokenizer.from_pretrained(new_id, cache_dir=tmp_path / "cache")
    assert found.chat_template == tokenizer.chat_template
    talk = [{"role": "user", "content": "hub"}]
    assert found.apply_chat_template(talk, chat_template="tool_use", tokenize=False) == "TOOLhub"


def test_config(hub, new_id, tmp_path):
    config = BertConfig(hidden_size=48, num_attention_heads=4, num_hidden_layers=2)
    CALLS["BertConfig.save_pretrained(push_to_hub)"] += 1
    config.save_pretrained(str(tmp_path / "saved"), push_to_hub=True, repo_id=new_id, commit_message="Config")
    first = hub.head(new_id)
    hub.branch(new_id, "wide")
    config.hidden_size = 96
    CALLS["BertConfig.push_to_hub"] += 1
    config.push_to_hub(new_id, revision="wide")
    CALLS["AutoConfig.from_pretrained"] += 3
    for revision, size in (("main", 48), ("wide", 96), (first, 48)):
        found = AutoConfig.from_pretrained(new_id, revision=revision, cache_dir=tmp_path / "cache")
        assert (type(found), found.hidden_size) == (BertConfig, size)
    assert json.loads(hub.content(new_id, "config.json"))["hidden_size"] == 48


def test_config_by_pull_request(hub, repo, tmp_path):
    BertConfig(hidden_size=48).push_to_hub(repo, create_pr=True)
    assert "config.json" not in hub.paths(repo)
    assert AutoConfig.from_pretrained(repo, revision="refs/pr/1", cache_dir=tmp_path).hidden_size == 48


def test_second_load_downloads_nothing(hub, new_id, tokenizer, tmp_path):
    tokenizer.push_to_hub(new_id)
    AutoTokenizer.from_pretrained(new_id, cache_dir=tmp_path)
    since = hub.last_seq()
    AutoTokenizer.from_pretrained(new_id, cache_dir=tmp_path)
    assert [item for item in hub.requests(since, method="GET") if "/resolve" in item["path"]] == []


def test_missing_and_private_things(hub, repo, new_id, tmp_path):
    with pytest.raises(OSError, match="is not a local folder and is not a valid model identifier"):
        AutoConfig.from_pretrained(new_id, cache_dir=tmp_path)
    with pytest.raises(OSError, match="does not appear to have a file named weights.json"):
        cached_file(repo, "weights.json", cache_dir=tmp_path)
    with pytest.raises(OSError, match="is not a valid git identifier"):
        AutoConfig.from_pretrained(repo, revision="nowhere", cache_dir=tmp_path)
    hub.set_repo(repo, gated="auto")
    with pytest.raises(OSError, match="gated repo"):
        AutoConfig.from_pretrained(repo, token=hub.tokens["other"], cache_dir=tmp_path)


def test_weights_are_found_by_name(hub, repo, tmp_path):
    """What from_pretrained of a model does before it needs torch: the shards behind an index."""
    weights = os.urandom(200_000)
    hub.commit(repo, {"model.safetensors": weights})
    CALLS["cached_file"] += 1
    with open(cached_file(repo, "model.safetensors", cache_dir=tmp_path), "rb") as file:
        assert file.read() == weights
