"""Every session and every program of README and the guide is run, on a server of its own, as a reader would."""

from pathlib import Path

import pytest

from documentation import ROOT
from documented_server import DocumentedServer
from guide_scenes import NOT_RUN, SCENES
from guide_sessions import Guide
from private_mongodb import ferretdb

pytestmark = [pytest.mark.root, pytest.mark.nginx, pytest.mark.apache2, pytest.mark.postgresql]
# A change is left to go back by itself, which takes half a minute.
LONG = {"docs/changes.md"}


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.long] if page in LONG else []) for page in SCENES]
)
def test_a_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    if page == "docs/mongodb.md" and ferretdb() is None:
        pytest.skip("LEFT OUT: there is no FerretDB; tests/install-ferretdb.sh builds it where there is Go")
    not_run = {words: reason for (where, words), reason in NOT_RUN.items() if where == page}
    server = DocumentedServer(tmp_path)
    try:
        guide = Guide(ROOT / page, SCENES[page], not_run, server)
        differences = list(guide.differences())
    finally:
        server.close()
    assert not differences, "\n\n".join(differences)
    assert guide.ran and guide.left_out == set(not_run)
