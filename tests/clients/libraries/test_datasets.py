"""datasets, unmodified: tables go to the Hub as Parquet shards, and come back whole and as streams."""

import json

import datasets
import pandas
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict, get_dataset_config_names, load_dataset, load_dataset_builder
from datasets.hub import delete_from_hub
from examiner import CALLS
from huggingface_hub import HfFileSystem

ROWS = {"number": list(range(1000)), "text": [f"row {n}" for n in range(1000)]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No table of one test is found in the cache by another."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def load(*arguments, **options):
    CALLS["load_dataset" + ("(streaming)" if options.get("streaming") else "")] += 1
    return load_dataset(*arguments, **options)


def push(table, *arguments, **options):
    CALLS[type(table).__name__ + ".push_to_hub"] += 1
    return table.push_to_hub(*arguments, **options)


def test_dataset(hub, new_id):
    info = push(Dataset.from_dict(ROWS), new_id, private=True)
    assert info.oid == hub.head(new_id, type="dataset")
    assert hub.paths(new_id, type="dataset") == [
        ".gitattributes",
        "README.md",
        "data/train-00000-of-00001.parquet",
    ]
    assert load(new_id, split="train").to_dict() == ROWS
    stream = load(new_id, split="train", streaming=True)
    assert [row["number"] for row in stream.skip(990)] == ROWS["number"][990:]


def test_shards(hub, new_id):
    push(Dataset.from_dict(ROWS), new_id, num_shards=4)
    shards = [path for path in hub.paths(new_id, type="dataset") if path.startswith("data/")]
    assert shards == [f"data/train-{n:05}-of-00004.parquet" for n in range(4)]
    assert load(new_id, split="train[25%:50%]")["number"] == ROWS["number"][250:500]
    stream = load(new_id, split="train", streaming=True)
    assert stream.num_shards == 4
    assert sorted(row["number"] for row in stream.shuffle(seed=1, buffer_size=100)) == ROWS["number"]


def test_stream_is_pushed(hub, new_id):
    """An IterableDataset is written shard by shard as it is read."""
    push(Dataset.from_dict(ROWS).to_iterable_dataset(num_shards=2), new_id)
    assert load(new_id, split="train").to_dict() == ROWS


def test_configurations_and_their_deletion(hub, new_id):
    """Deletion is a pull request; merged, it takes the files and the card's lines away."""
    for name in ("one", "two"):
        push(Dataset.from_dict({"name": [name]}), new_id, name, data_dir=name)
    CALLS["delete_from_hub"] += 1
    delete_from_hub(new_id, "one")
    hub.call("POST", hub.api(new_id, "dataset") + "/discussions/1/status", {"status": "open"})
    hub.call("POST", hub.api(new_id, "dataset") + "/discussions/1/merge", {})
    assert get_dataset_config_names(new_id) == ["two"]
    assert load(new_id, "two", split="train")["name"] == ["two"]
    assert not [path for path in hub.paths(new_id, type="dataset") if path.startswith("one/")]


def test_second_push_replaces_the_first(hub, new_id):
    """What was pushed before goes in the same commit; the card keeps the other configurations."""
    push(Dataset.from_dict(ROWS), new_id, num_shards=3)
    push(Dataset.from_dict({"number": [7]}), new_id, "small", commit_message="Another configuration")
    push(Dataset.from_dict({"number": [1, 2], "text": ["a", "b"]}), new_id, num_shards=1)
    assert [path for path in hub.paths(new_id, type="dataset") if path.startswith("data/")] == [
        "data/train-00000-of-00001.parquet"
    ]
    CALLS["get_dataset_config_names"] += 1
    assert sorted(get_dataset_config_names(new_id)) == ["default", "small"]
    assert load(new_id, split="train")["number"] == [1, 2]
    assert load(new_id, "small", split="train")["number"] == [7]


def test_dataset_dict(hub, new_id):
    splits = {"train": Dataset.from_dict(ROWS), "test": Dataset.from_dict({"number": [1], "text": ["one"]})}
    push(DatasetDict(splits), new_id, commit_message="Two splits", commit_description="at once")
    assert hub.history(new_id, type="dataset")[0][1] == "Two splits"
    found = load(new_id)
    assert {name: table.num_rows for name, table in found.items()} == {"train": 1000, "test": 1}
    streams = load(new_id, streaming=True)
    assert next(iter(streams["test"])) == {"number": 1, "text": "one"}


def test_branch_and_pull_request(hub, new_id):
    hub.create_repo(new_id, "dataset")
    hub.branch(new_id, "next", type="dataset")
    push(Dataset.from_dict({"n": [1]}), new_id, revision="next")
    push(Dataset.from_dict({"n": [2]}), new_id, create_pr=True)
    assert hub.paths(new_id, type="dataset") == [".gitattributes"]
    assert load(new_id, split="train", revision="next")["n"] == [1]
    assert load(new_id, split="train", revision="refs/pr/1")["n"] == [2]


def test_plain_files(hub, new_id):
    """Files that the library did not push: CSV and JSON lines, by pattern, name and hf:// address."""
    hub.create_repo(new_id, "dataset")
    lines = b"".join(json.dumps({"a": n}).encode() + b"\n" for n in range(50))
    hub.commit(
        new_id,
        {"data/train.csv": b"a,b\n1,x\n2,y\n", "more/part-0.jsonl": lines, "more/part-1.jsonl": lines},
        type="dataset",
    )
    assert load(new_id, data_files="data/*.csv", split="train").to_dict() == {"a": [1, 2], "b": ["x", "y"]}
    assert len(load(new_id, data_files="more/*.jsonl", split="train")) == 100
    address = f"hf://datasets/{new_id}/more/part-0.jsonl"
    assert len(list(load("json", data_files=address, split="train", streaming=True))) == 50
    CALLS["load_dataset_builder"] += 1
    assert set(load_dataset_builder(new_id, data_dir="data").config.data_files) == {"train"}


def test_parquet_by_address(hub, new_id):
    """pandas and pyarrow read hf:// addresses through ranges; Dataset writes one."""
    push(Dataset.from_dict(ROWS), new_id)
    name = f"hf://datasets/{new_id}/data/train-00000-of-00001.parquet"
    CALLS["pandas.read_parquet"] += 1
    assert pandas.read_parquet(name)["number"].tolist() == ROWS["number"]
    CALLS["pyarrow.parquet.read_table"] += 1
    since = hub.last_seq()
    with HfFileSystem(skip_instance_cache=True).open(name, block_size=1000, cache_type="none") as file:
        assert pyarrow.parquet.read_table(file, columns=["number"])["number"].to_pylist() == ROWS["number"]
    assert all(item["range"] for item in hub.requests(since, origin="data", method="GET"))
    CALLS["Dataset.to_parquet"] += 1
    Dataset.from_dict({"n": [5]}).to_parquet(f"hf://datasets/{new_id}/other/t.parquet")
    assert pandas.read_parquet(f"hf://datasets/{new_id}/other/t.parquet")["n"].tolist() == [5]


def test_second_load_downloads_nothing(hub, new_id):
    push(Dataset.from_dict(ROWS), new_id)
    load(new_id, split="train")
    since = hub.last_seq()
    assert load(new_id, split="train").num_rows == 1000
    assert hub.requests(since, origin="data") == []


def test_private_dataset_is_not_found_by_others(hub, new_id):
    push(Dataset.from_dict({"n": [1]}), new_id, private=True)
    with pytest.raises(datasets.exceptions.DatasetNotFoundError):
        load(new_id, token=hub.tokens["other"])
