import hashlib

import numpy as np
from torchvision.datasets import CIFAR10 as READER

from tests.data import official, two_at_once
from tests.data.bad_server import BadServer


def test_one_process_downloads_unpacks_and_decodes_and_the_other_waits(tmp_path):
    folder = tmp_path / "data"
    cifar = official.cifar(READER, tmp_path)
    tiny = official.tiny_imagenet(tmp_path / "made.zip", images_a_class=200)
    contents = {READER.filename: cifar.archive.read_bytes(), tiny.name: (tmp_path / "made.zip").read_bytes()}
    with BadServer(contents[READER.filename]) as first, BadServer(contents[tiny.name]) as second:
        specs = [
            two_at_once.cifar10_spec(cifar, first.url("paced")),
            two_at_once.tiny_imagenet_spec(tiny, second.url("paced")),
        ]
        codes, said = two_at_once.run(specs, folder)
        assert codes == [0, 0], said
        for server in (first, second):
            assert server.requests == [("paced", 0)]
            assert server.sent.total() == len(server.content)
    for work in (f"unpacking of {READER.filename}", f"download of {tiny.name}"):
        assert sum(f"waiting for another process's {work}" in text for text in said) == 1
    for split in ("train", "test"):
        assert sum(f"decoding {split} images: 100%" in text for text in said) == 1
    visible = sorted(item.name for item in folder.iterdir() if item.suffix != ".lock")
    assert visible == [READER.base_folder, READER.filename, tiny.name, f"{tiny.name}.vitlocal"]
    assert {name: (folder / name).read_bytes() for name in contents} == contents
    for name, md5 in cifar.reader["train_list"] + cifar.reader["test_list"]:
        assert hashlib.md5((folder / READER.base_folder / name).read_bytes()).hexdigest() == md5
    caches = sorted((folder / f"{tiny.name}.vitlocal").glob("*.npy"))
    assert [np.load(cache).shape for cache in caches] == [(1, 3, 64, 64), (400, 3, 64, 64)]
