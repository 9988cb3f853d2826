# Reads the exports of a data set with what Python programs read them with, and prints what each reader saw as JSON:
# {reader: {sha256 of a picture: [split, caption, frames]}}. Nothing of this project is used. Run by curate_readers.test.ts:
# readers.py FOLDER READER...
import hashlib
import io
import json
import os
import sys
import tarfile

from PIL import Image


def frames(data):
    picture = Image.open(io.BytesIO(data))
    for i in range(getattr(picture, "n_frames", 1)):
        picture.seek(i)
        picture.load()
    return getattr(picture, "n_frames", 1)


def seen(data, split, caption):
    return hashlib.sha256(data).hexdigest(), [split, caption, frames(data)]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def imagefolder(root):
    for split in sorted(name for name in os.listdir(root) if os.path.isdir(os.path.join(root, name))):
        with open(os.path.join(root, split, "metadata.jsonl"), encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                yield seen(read(os.path.join(root, split, record["file_name"])), split, record["caption"])


def webdataset(root):
    for shard in sorted(name for name in os.listdir(root) if name.endswith(".tar")):
        samples = {}
        with tarfile.open(os.path.join(root, shard)) as tar:
            for member in tar:
                key, kind = member.name.split(".", 1)  # the rule of WebDataset: up to the first dot
                samples.setdefault(key, {})[kind] = tar.extractfile(member).read()
        for sample in samples.values():
            texts = {sample.pop("txt").decode(), json.loads(sample.pop("json"))["caption"]}
            (data,), (caption,) = sample.values(), texts
            yield seen(data, shard.rsplit("-", 2)[0], caption)


def parquet(root):
    import pyarrow.parquet

    for name in sorted(name for name in os.listdir(root) if name.endswith(".parquet")):
        for row in pyarrow.parquet.read_table(os.path.join(root, name)).to_pylist():
            yield seen(row["image"]["bytes"], name.rsplit("-", 1)[0], row["caption"])


def huggingface(root):
    import datasets

    cache = os.path.join(os.path.dirname(root), "cache")
    for config in datasets.get_dataset_config_names(root):
        for split, rows in datasets.load_dataset(root, config, cache_dir=cache).items():
            (column,) = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
            for row in rows.cast_column(column, datasets.Image(decode=False)):
                data = row[column]["bytes"] or read(row[column]["path"])
                yield seen(data, split.replace("_", "-"), row["txt"] if "txt" in row else row["caption"])


READERS = {
    "imagefolder": [imagefolder, "imagefolder"],
    "tarfile": [webdataset, "webdataset"],
    "pyarrow": [parquet, "parquet"],
    "datasets imagefolder": [huggingface, "imagefolder"],
    "datasets webdataset": [huggingface, "webdataset"],
    "datasets parquet": [huggingface, "parquet"],
}
folder, *names = sys.argv[1:]
print(json.dumps({name: dict(READERS[name][0](os.path.join(folder, READERS[name][1]))) for name in names}))
