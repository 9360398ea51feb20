"""Bytes from the data origin: what is asked for, how often, and what happens when the origin stalls, drips, lies or
dies. Every test looks at the requests that arrived there.
"""

import random

MIB = 1 << 20


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def data_requests(hub, seq):
    return hub.requests(since=seq, origin="data")


# Wrong bytes


def test_a_flipped_byte_in_a_file_of_one_block_is_not_seen(mount, box, hub):
    content = noise(MIB - 5)
    m = mount(box.repo({"w.bin": content}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", flip_byte=1000, times=1)
    box.expect("do not have this hash")
    seq = hub.last_seq()
    assert m.read("main/w.bin") == content
    assert len(data_requests(hub, seq)) == 2


def test_a_flipped_byte_ends_the_read_and_the_next_open_is_right(mount, box, hub):
    """The first blocks were read before the last one showed that they were wrong: the reader must not think that it
    has the file, and what the kernel keeps of it must go."""
    content = noise(4 * MIB + 99)
    m = mount(box.repo({"w.bin": content}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", flip_byte=1000, times=1)
    box.expect("do not have this hash|given up")
    assert m.outcome("open('main/w.bin', 'rb').read()") == "EIO"
    assert m.read("main/w.bin") == content


def test_bytes_that_are_always_wrong_are_an_error(mount, box, hub):
    m = mount(box.repo({"w.bin": noise(3 * MIB), "small.bin": noise(MIB, 2)}).uri)
    m.stat("main/w.bin")
    hub.fault(origin="data", flip_byte=5, times=-1)
    box.expect("do not have this hash|given up")
    assert m.outcome("open('main/w.bin', 'rb').read()") == "EIO"
    assert m.outcome("open('main/small.bin', 'rb').read()") == "EIO"
    hub.clear_faults()
    assert m.read("main/w.bin") == noise(3 * MIB)
    assert m.read("main/small.bin") == noise(MIB, 2)
