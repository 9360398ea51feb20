"""What training programs do: the libraries themselves, unmodified, save into the mount. Each save is one commit.

They run in the environment of tests/clients/libraries, whose folder only the one who built it may reach; so these tests
run as root, and not in the pass of the ordinary user.
"""

import os
import textwrap

import pytest

import harness

LIBRARIES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "build",
                         "venv-libraries", "bin", "python3")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error",
           "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
TOKENIZER = """
import os, sys, time
import numpy
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerFast
from tokenizers import Tokenizer, models, pre_tokenizers
def weights(seed, mib):
    return {"weight": numpy.random.default_rng(seed).random((mib, 1 << 17))}
def tokenizer():
    words = {word: number for number, word in enumerate(["[UNK]", "[PAD]", "hub", "mount", "file"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]")
os.chdir(sys.argv[1])
"""


@pytest.fixture
def program(root_box):
    """Runs Python with the libraries in a folder of the mount."""
    if not os.path.exists(LIBRARIES):
        reason = f"{LIBRARIES} is missing: tests/setup makes it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)

    def run(folder, code, *args, talk=False, timeout=100):
        command = [LIBRARIES, "-c", TOKENIZER + textwrap.dedent(code), folder, *args]
        if talk:
            return root_box.spawn(command, env=OFFLINE)
        return root_box.run(command, env=OFFLINE, timeout=timeout).out
    return run


@pytest.mark.limit(120)
def test_save_pretrained(root_box, program):
    repo = root_box.repo()
    m = root_box.mount(repo.uri)
    program(m.path("main"), """
        tokenizer().save_pretrained(".")
        BertConfig(hidden_size=32, num_attention_heads=2).save_pretrained(".")
        save_file(weights(1, 8), "model.safetensors", metadata={"format": "pt"})
        """)
    repo.wait_published(timeout=60)
    assert set(repo.paths()) >= {"tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"}
    assert program(m.path("main"), """
        assert AutoTokenizer.from_pretrained(".")("hub mount")["input_ids"] == [2, 3]
        assert BertConfig.from_pretrained(".").hidden_size == 32
        assert (load_file("model.safetensors")["weight"] == weights(1, 8)["weight"]).all()
        print("equal")
        """) == "equal\n"
    m.unmount()
    assert len(repo.published()) == 1


@pytest.mark.limit(120)
def test_saving_the_same_model_again_changes_nothing(root_box, program, hub):
    repo = root_box.repo()
    m = root_box.mount(repo.uri, "commit_delay=0.5")
    save = """
        tokenizer().save_pretrained(".")
        save_file(weights(1, 8), "model.safetensors")
        """
    program(m.path("main"), save)
    repo.wait_published(timeout=60)
    seq = hub.last_seq()
    program(m.path("main"), save)
    root_box.hugfs("commit", m.path("main"))
    m.unmount()
    assert len(repo.published()) == 1
    assert not [item for item in hub.requests(since=seq) if item["method"] == "PUT" or "/commit/" in item["path"]]


@pytest.mark.limit(150)
def test_a_sharded_checkpoint_saved_with_pauses(root_box, program):
    """A tenth of the real times: half a minute between shards, commit_delay=45. The index comes last."""
    repo = root_box.repo()
    m = root_box.mount(repo.uri, "commit_delay=4.5")
    program(m.path("main"), """
        import json
        names = [f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)]
        for number, name in enumerate(names):
            save_file(weights(number, 2), name)
            time.sleep(3)
        with open("model.safetensors.index.json", "w") as file:
            json.dump({"weight_map": {f"w{number}": name for number, name in enumerate(names)}}, file)
        """)
    assert repo.published() == []
    repo.wait_published(timeout=60)
    assert len(repo.paths()) == 5
    m.unmount()
    assert len(repo.published()) == 1


@pytest.mark.limit(150)
def test_a_training_loop(root_box, program):
    """Every so many steps a save by os.replace, while the event file of TensorBoard is open all the time."""
    repo = root_box.repo()
    m = root_box.mount(repo.uri, "commit_delay=0.5", "open_wait=2")
    loop = program(m.path("main"), """
        from tensorboardX import SummaryWriter
        board = SummaryWriter("runs", flush_secs=1)
        for step in range(1, 4):
            for part in range(100):
                board.add_scalar("loss", 1 / (step * 100 + part), step * 100 + part)
            board.flush()
            for name in ("model.safetensors", "optimizer.safetensors"):
                save_file(weights(step, 1), name + ".tmp")
                os.replace(name + ".tmp", name)
            with open("state.json.tmp", "w") as file:
                file.write(str(step))
            os.replace("state.json.tmp", "state.json")
            print("saved", flush=True)
            sys.stdin.readline()
        board.close()
        print("closed", flush=True)
        """, talk=True)
    for step in range(1, 4):
        loop.expect("saved", timeout=60)
        repo.wait_published(step, timeout=60)
        assert repo.content("state.json") == str(step).encode()
        loop.tell()
    loop.expect("closed")
    loop.finish()
    repo.wait_published(4, timeout=60)
    assert any(path.startswith("runs/events.out.tfevents") for path in repo.paths())
    m.unmount()
    assert len(repo.published()) == 4


@pytest.mark.limit(150)
def test_the_old_checkpoint_is_deleted_before_the_new_one_is_written(root_box, program):
    repo = root_box.repo()
    m = root_box.mount(repo.uri, "commit_delay=1")
    for step in (1, 2):
        program(m.path("main"), """
            import shutil
            step = int(sys.argv[2])
            shutil.rmtree(f"checkpoint-{step - 1}", ignore_errors=True)
            time.sleep(3)
            os.mkdir(f"checkpoint-{step}")
            for number in range(2):
                save_file(weights(step, 1), f"checkpoint-{step}/model-{number}.safetensors")
            tokenizer().save_pretrained(f"checkpoint-{step}")
            """, str(step))
        repo.wait_published(step, timeout=60)
        assert {path.split("/")[0] for path in repo.paths()} == {f"checkpoint-{step}"}
    m.unmount()
    assert len(repo.published()) == 2


@pytest.mark.limit(150)
def test_datasets_save_to_disk_and_map(root_box, program):
    repo = root_box.repo(type="dataset")
    m = root_box.mount(repo.uri, "commit_delay=1")
    program(m.path("main"), """
        from datasets import Dataset
        Dataset.from_dict({"text": [f"line {number}" for number in range(10000)]}).save_to_disk("set", num_shards=3)
        """)
    repo.wait_published(timeout=60)
    assert len([path for path in repo.paths() if path.endswith(".arrow")]) == 3
    harness.eventually(lambda: m.xattr("main/set/state.json", "state") == "clean")
    assert program(m.path("main"), """
        from datasets import load_from_disk
        data = load_from_disk("set").map(lambda row: {"length": len(row["text"])})
        print(sum(data["length"]))
        """) == f"{sum(len(f'line {number}') for number in range(10000))}\n"
    repo.wait_published(2, timeout=60)
    m.unmount()
    assert len(repo.published()) == 2
