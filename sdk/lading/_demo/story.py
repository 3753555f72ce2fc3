"""The tutorial: log a data set, train on it, mark the best, link it, deploy it, promote it. Public SDK alone."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import lading
from lading._demo.digits import HELD_OUT, TRAIN, read_images, write_digits
from lading._demo.network import Network, Training
from lading._demo.pages import lineage_page, registry_page
from lading._demo.server import Address

PROJECT = "digits"
MODEL = "model-registry/Digit Reader"

_CONFIG = {"learning_rate": 0.005, "batch_size": 32, "epochs": 6, "seed": 7}
_CHECKPOINT = "model.npz"


async def tell(address: Address, work: Path) -> None:
    """Run the whole story against a server, with files below `work`."""
    await _log_data_set(address, work / "digits")
    await _train(address, work / "training")
    accuracy = await _deploy(address, work / "deployment")
    await _promote(address, accuracy)
    await _show(address)


async def _log_data_set(address: Address, images: Path) -> None:
    count = write_digits(images)
    _say(f"1. wrote {count:,} handwritten digits as PNG files, a directory a class, with an index.csv")
    async with lading.init(PROJECT, job_type="prepare", url=address.url, api_key=address.api_key) as run:
        data = lading.Artifact(
            "digits-png",
            type="dataset",
            metadata={"images": count, "pixels": [8, 8]},
            description="Handwritten digits of the UCI set, 8 by 8 pixels, as scikit-learn ships them.",
        )
        data.add_dir(images)
        version = await run.log_artifact(data)
    _say(f"   logged them as {version.reference}: {version.file_count:,} files, {version.digest[:15]}…")


async def _train(address: Address, work: Path) -> None:
    work.mkdir()
    async with lading.init(PROJECT, job_type="train", config=_CONFIG, url=address.url, api_key=address.api_key) as run:
        data = await run.use_artifact("digits-png:latest", type="dataset")
        root = await data.download(work / "data")
        images, held_out = read_images(root, TRAIN), read_images(root, HELD_OUT)
        _say(f"2. run {run.id} trains on {data.reference}: {len(images.labels):,} images")
        training = Training(
            learning_rate=_CONFIG["learning_rate"], batch_size=int(_CONFIG["batch_size"]), seed=int(_CONFIG["seed"])
        )
        best, best_accuracy = None, 0.0
        for epoch in range(int(_CONFIG["epochs"])):
            loss = training.epoch(images)
            checkpoint = work / f"epoch-{epoch}" / _CHECKPOINT
            checkpoint.parent.mkdir()
            training.save(checkpoint)
            accuracy = Network(checkpoint).accuracy(held_out)
            run.log({"loss": loss, "accuracy": accuracy})
            model = lading.Artifact(
                "digit-reader",
                type="model",
                metadata={"format": "npz", "epoch": epoch, "loss": loss, "accuracy": accuracy},
                description=f"A network with one hidden layer after epoch {epoch}.",
            )
            model.add_file(checkpoint)
            is_best = accuracy > best_accuracy
            logged = run.log_artifact(model, aliases=["best"] if is_best else [])
            if is_best:
                best, best_accuracy = logged, accuracy
            _say(f"   epoch {epoch}: loss {loss:.3f}, accuracy {accuracy:.1%}{' — best' if is_best else ''}")
        if best is None:
            sys.exit("no epoch read a single digit")
        link = await run.link_artifact(await best, MODEL, aliases=["staging"])
    _say(f"3. linked {link.source} as {link.reference}, alias staging")


async def _deploy(address: Address, work: Path) -> float:
    async with lading.init(PROJECT, job_type="deploy", url=address.url, api_key=address.api_key) as run:
        model = await run.use_artifact(f"{MODEL}:staging", type="model")
        data = await run.use_artifact("digits-png:latest", type="dataset")
        root = await model.download(work / "model")
        checked = await model.verify(root)
        if not checked.ok:
            sys.exit(f"{root} is not what was logged: {checked}")
        _say(f"4. a deployment fetched {model.reference} and verified every byte of it")
        images = await data.download(work / "data")
        accuracy = Network(root / _CHECKPOINT).accuracy(read_images(images, HELD_OUT))
        run.summary["accuracy"] = accuracy
    _say(f"   it reads {accuracy:.1%} of the held-out images right")
    return accuracy


async def _promote(address: Address, accuracy: float) -> None:
    async with lading.Client(address.url, api_key=address.api_key) as client:
        version = await client.set_aliases(f"{MODEL}:staging", set=["production"])
        await client.tag_version(version.reference, add=["approved"])
    _say(f"5. promoted {version.reference} to production at {accuracy:.1%}\n")


async def _show(address: Address) -> None:
    async with lading.Client(address.url, api_key=address.api_key) as client:
        _say(await registry_page(client, MODEL))
        _say(await lineage_page(client, f"{MODEL}:production"))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def scratch_directory() -> tempfile.TemporaryDirectory[str]:
    """Return a directory that goes away with the demo."""
    return tempfile.TemporaryDirectory(prefix="lading-demo-")
