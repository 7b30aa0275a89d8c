"""Offers from a catalogue on disk in gpuhunt's own form; the published one is never asked for here."""

from __future__ import annotations

import gc
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from perfbench.errors import InputError, PerfbenchError
from perfbench.plan.prices import find_offers

pytest.importorskip("gpuhunt", reason="prices need gpuhunt")

pytestmark = [  # gpuhunt 0.1.34 leaves the files that it reads to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"), pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]  # fmt: skip

HEAD = "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags,cpu_arch,provider_data\n"
AWS = (
    "p5.48xlarge,us-east-1,98.32,192,2048,8,H100,80,False,,nvidia,,x86,\np5.4xlarge,us-east-1,7.0,16,256,1,H100,80,True,,nvidia,,x86,\n"
    "p4d.24xlarge,us-east-1,32.77,96,1152,8,A100,40,False,,nvidia,,x86,\np4de.24xlarge,us-east-1,40.96,96,1152,8,A100,80,False,,nvidia,,x86,\n"
    "m5.large,us-east-1,0.09,2,8,0,,,False,,,,x86,\n"
)
RUNPOD = "H100-1,EU-1,2.69,16,125,1,H100,80,False,100,nvidia,,x86,\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "aws.csv").write_text(HEAD + AWS)
    (tmp_path / "runpod.csv").write_text(HEAD + RUNPOD)
    os.utime(tmp_path / "aws.csv", (1_790_000_000, 1_790_000_000))  # 2026-09-21 in UTC
    return tmp_path


def test_the_cheapest_gpu_hour_comes_first(folder: Path) -> None:
    found = find_offers("h100", folder=folder)
    assert [(offer.provider, offer.gpus, offer.gpu_hour_usd) for offer in found.offers] == [("runpod", 1, 2.69), ("aws", 8, pytest.approx(12.29))]
    assert found.catalogue_dates["aws"] == "file of 2026-09-21" and set(found.catalogue_dates) == {"aws", "runpod"}


def test_memory_and_count_and_provider_narrow_it(folder: Path) -> None:
    assert [offer.instance for offer in find_offers("a100-80gb", folder=folder).offers] == ["p4de.24xlarge"]
    assert [offer.instance for offer in find_offers("H100-SXM-80GB", gpus=1, folder=folder).offers] == ["H100-1"]
    assert [offer.provider for offer in find_offers("h100", providers=["AWS"], folder=folder).offers] == ["aws"]
    assert [offer.spot for offer in find_offers("h100", spot=True, folder=folder).offers] == [True]


def test_machines_without_a_gpu_are_none_of_them(folder: Path) -> None:
    found = find_offers(folder=folder, limit=2)
    assert (found.found, len(found.offers)) == (4, 2)


def test_the_environment_is_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUHUNT_CATALOG_DIR", "/elsewhere")
    find_offers("h100", folder=folder)
    assert os.environ["GPUHUNT_CATALOG_DIR"] == "/elsewhere"


def test_unknown_words_have_their_sentence(folder: Path) -> None:
    with pytest.raises(InputError, match=r"--gpu: gpuhunt does not know `h1000`; did you mean `H100`\?"):
        find_offers("h1000", folder=folder)
    with pytest.raises(InputError, match=r"--provider: gpuhunt does not know `amazone`"):
        find_offers("h100", providers=["amazone"], folder=folder)
    with pytest.raises(InputError, match="holds no catalogue"):
        find_offers("h100", folder=folder / "none")


def test_offline_it_says_so_in_one_sentence(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("GPUHUNT_CATALOG_DIR", raising=False)
    monkeypatch.setenv("GPUHUNT_CATALOG_URL", "http://127.0.0.1:9/v3")  # the discard port: refused at once
    with pytest.raises(PerfbenchError, match=r"the price catalogue of gpuhunt cannot be reached .*refused.*--catalogue"):
        find_offers("h100")
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_no_catalogue_and_rows_that_cannot_be_read(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "gcp.csv").write_text(HEAD + "a3,us,free,1,1,1,H100,80,False,,nvidia,,x86,\n" + RUNPOD)
    found = find_offers("h100", providers=["gcp"], folder=folder)
    assert (found.unread, found.found) == (1, 1) and capfd.readouterr() == ("", "")
    (folder / "gcp.csv").write_text("name,usd\na3,1\n")
    with pytest.raises(InputError, match=r"gcp.csv: expected the columns of a gpuhunt catalogue.*there is no instance_name, location, price"):
        find_offers("h100", folder=folder)


@pytest.fixture
def published(folder: Path) -> Iterator[str]:
    """aws's catalogue as gpuhunt publishes it: its version, and a zip of a file that gpuhunt itself has written. Nothing else is there."""
    from gpuhunt._internal import storage

    with (folder / "aws.csv").open() as file:
        items = list(storage.load(file, provider="aws"))
    storage.dump(items, str(folder / "dumped.csv"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(folder / "dumped.csv", "aws.csv")
    pages = {"/v3/aws/version": b"20261124-77\n", "/v3/aws/20261124-77/catalog.zip": packed.getvalue()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v3"
    server.shutdown()
    thread.join()
    server.server_close()
    gc.collect()  # the sockets of pages that were not found, while their warnings are still ignored


def test_the_published_catalogue_is_fetched_with_its_version(published: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Providers whose catalogue cannot be had are left out, and missing among the dates."""
    monkeypatch.delenv("GPUHUNT_CATALOG_DIR", raising=False)
    monkeypatch.setenv("GPUHUNT_CATALOG_URL", published)
    found = find_offers("h100")
    assert found.catalogue_dates == {"aws": "20261124-77"}
    assert [(offer.instance, offer.gpus, offer.gpu_hour_usd) for offer in found.offers] == [("p5.48xlarge", 8, pytest.approx(12.29))]
    assert capfd.readouterr() == ("", "")
    with pytest.raises(PerfbenchError, match=r"no catalogue of runpod"):
        find_offers("h100", providers=["runpod"])
