"""How volumes behave alike in every cloud, as tests: each cloud's test class inherits them, and says what is called
what there.

The clouds are servers that answer as the references of their APIs say, the devices are loop devices. That proves how
the agent uses the SDKs; of the clouds themselves it proves nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from provider_server import CloudServer, Devices, devices_below
from provider_storage import ProviderStorage, adopt_after_kill, live, provider_storage
from scalarizr.errors import InvalidParameter, NotFound, Refused, ScalarizrError
from scalarizr.platform_access import PlatformAccess, set_platform_access
from scalarizr.storage.storage import Storage

_TABLES = ("passing", "refusal", "impossible", "wrong_access")


class CloudContract(ABC):
    """Tests of one cloud's volumes.

    :cvar type_name: of its volumes.
    :cvar keys: of the type's own, which a volume has to keep.
    :cvar making: the call that makes a volume, as `CloudServer.fail` knows it; likewise `attaching`, `snapshotting` and
        `enlarging`, each with what goes wrong with it and words that then have to be told.
    :cvar passing: calls, and what goes wrong with them for a moment.
    :cvar refusal: what goes wrong with `making`, the error that this is, and words that have to be told.
    :cvar impossible: keys of a volume that cannot be, and how the parameter's name ends that is told.
    :cvar wrong_access: credentials in place of the right ones, the error, and words that have to be told; a secret
        among them begins with `a-wrong`.
    """

    type_name: ClassVar[str]
    keys: ClassVar[dict[str, Any]]
    making: ClassVar[str]
    attaching: ClassVar[tuple[str, Any, str]]
    snapshotting: ClassVar[tuple[str, Any, str]]
    enlarging: ClassVar[tuple[str, Any, str]]
    passing: ClassVar[tuple[tuple[str, Any], ...]]
    refusal: ClassVar[tuple[tuple[Any, type[ScalarizrError], str], ...]]
    impossible: ClassVar[tuple[tuple[dict[str, Any], str], ...]]
    wrong_access: ClassVar[tuple[tuple[dict[str, str], type[ScalarizrError], str], ...]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        for name in _TABLES:
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, getattr(self, name))

    @staticmethod
    @abstractmethod
    def serve(devices: Devices) -> CloudServer:
        """Start the cloud."""

    @pytest.fixture(scope="class")
    @classmethod
    def cloud(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudServer]:
        with devices_below(tmp_path_factory.mktemp(cls.type_name) / "devices") as devices:
            server = cls.serve(devices)
            try:
                yield server
            finally:
                server.close()

    @pytest.fixture(scope="class")
    @classmethod
    def storage(cls, cloud: CloudServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderStorage]:
        with provider_storage(tmp_path_factory.mktemp("agent"), cloud, cls.type_name) as made:
            yield made

    @pytest.fixture
    def here(self, storage: ProviderStorage) -> Iterator[Storage]:
        with storage.opened() as opened:
            yield opened

    @pytest.fixture(autouse=True)
    def nothing_is_left(self, cloud: CloudServer) -> Iterator[None]:
        yield
        left = [cloud.volumes_made(), list(cloud.snapshots), dict(cloud.devices.loops), list(cloud.problems)]
        cloud.reset()
        assert left == [[], [], {}, []]

    def wanted(self, **keys: Any) -> dict[str, Any]:
        return {"type": self.type_name, "size": 1, **keys}

    def kind(self, here: Storage) -> Any:
        return here.catalogue.type_of(self.type_name, "type")

    def test_a_volume_goes_through_its_whole_life(self, storage: ProviderStorage, cloud: Any) -> None:
        live(storage, **self.keys)
        self.check_requests(cloud)

    @abstractmethod
    def check_requests(self, cloud: Any) -> None:
        """Look at what the cloud was asked for in a volume's life."""

    def test_a_volume_whose_maker_was_killed_is_made_once(self, storage: ProviderStorage) -> None:
        adopt_after_kill(storage, self.making)

    def test_a_volume_that_cannot_be_attached_is_deleted_again(
        self, storage: ProviderStorage, cloud: CloudServer
    ) -> None:
        call, how, words = self.attaching
        cloud.fail(call, how)
        mpoint = storage.directory / "never"
        failure = storage.failure("create", storage_config=self.wanted(mpoint=str(mpoint)), mkfs=True, mount=True)
        assert words in failure.message
        assert cloud.volumes_made() == [] and not mpoint.exists()

    def test_a_snapshot_that_comes_to_nothing_is_told_and_leaves_nothing(
        self, storage: ProviderStorage, here: Storage, cloud: CloudServer
    ) -> None:
        volume = here.create(self.wanted())
        call, how, words = self.snapshotting
        cloud.fail(call, how)
        failure = storage.failure("snapshot", volume=volume)
        assert failure.code == -32018 and words in failure.message and cloud.snapshots == {}
        here.destroy(volume)

    @pytest.mark.parametrize("attached", [False, True])
    def test_what_a_killed_call_made_is_deleted_attached_or_not(
        self, here: Storage, cloud: CloudServer, attached: bool
    ) -> None:
        kind, key = self.kind(here), "A key of others, long " * 5
        volume, _ours = kind.make(kind.config(**self.wanted()), key)
        if attached:
            kind.attach(volume)
        for _twice in range(2):
            kind.give_up(kind.config(**self.wanted()), key)
        assert cloud.volumes_made() == []

    def test_a_volume_that_is_gone_is_made_anew_only_where_that_is_wished(
        self, here: Storage, cloud: CloudServer
    ) -> None:
        volume = here.detach(here.create(self.wanted()))
        cloud.take_away(volume["id"])
        with pytest.raises(NotFound, match="gone"):
            here.create(volume)
        again = here.create({**volume, "recreate_if_missing": True})
        assert cloud.volumes_made() == [again["id"]] and again["device"] is not None
        here.destroy(again)

    def test_an_answer_that_was_lost_makes_no_second_volume(self, here: Storage, cloud: CloudServer) -> None:
        cloud.fail(self.making, "lost answer")
        volume = here.create(self.wanted())
        assert cloud.volumes_made() == [volume["id"]]
        here.destroy(volume)

    def test_what_passes_is_waited_for(self, here: Storage, cloud: CloudServer, passing: tuple[str, Any]) -> None:
        cloud.fail(*passing)
        volume = here.create(self.wanted())
        assert volume["device"] is not None
        here.destroy(volume)

    def test_what_the_cloud_refuses_is_told_in_its_own_words_and_nothing_is_left(
        self, here: Storage, cloud: CloudServer, refusal: tuple[Any, type[ScalarizrError], str]
    ) -> None:
        how, kind, words = refusal
        cloud.fail(self.making, how)
        with pytest.raises(kind) as caught:
            here.create(self.wanted())
        assert words in caught.value.message and "http" not in caught.value.message
        assert cloud.volumes_made() == []

    def test_a_volume_that_is_attached_elsewhere_is_left_there_and_that_is_named(
        self, here: Storage, cloud: CloudServer
    ) -> None:
        volume = here.detach(here.create(self.wanted()))
        holder = cloud.attach_elsewhere(volume["id"])
        for attempt in (lambda: here.create(volume), lambda: here.destroy(volume, force=True)):
            with pytest.raises(Refused, match=f"attached to {holder}") as caught:
                attempt()
            assert caught.value.facts["attached_to"] == [holder.removeprefix("the server ")]
        assert here.catalogue.records.of_id("volume", volume["id"]) is not None
        assert cloud.volumes_made() == [volume["id"]]
        cloud.let_go(volume["id"])
        here.destroy(volume)
        with pytest.raises(NotFound, match="gone"):
            here.create({"type": self.type_name, "id": volume["id"]})

    def test_a_failed_growth_leaves_the_volume_as_it_was(self, here: Storage, cloud: CloudServer) -> None:
        volume = here.create(self.wanted())
        call, how, words = self.enlarging
        cloud.fail(call, how)
        with pytest.raises(ScalarizrError) as caught:
            here.grow(volume, {"size": 2})
        assert words in caught.value.message
        for growth in ({"size": 0.5}, {"size": 1}, {"iops": 4}, {}):
            with pytest.raises(InvalidParameter):
                here.grow(volume, growth)
        assert here.create(volume)["size"] == 1
        here.destroy(volume)

    def test_what_cannot_be_is_refused_before_anything_is_made(
        self, here: Storage, cloud: CloudServer, impossible: tuple[dict[str, Any], str]
    ) -> None:
        keys, parameter = impossible
        asked: list[str] = []
        cloud.watch = asked.append
        with pytest.raises(InvalidParameter) as caught:
            here.create(self.wanted(**keys))
        assert str(caught.value.facts["parameter"]).endswith(parameter)
        assert self.making not in asked

    def test_credentials_that_are_wrong_are_refused_unseen(
        self, here: Storage, cloud: CloudServer, wrong_access: tuple[dict[str, str], type[ScalarizrError], str]
    ) -> None:
        keys, kind, words = wrong_access
        set_platform_access(PlatformAccess({**cloud.access, **keys}))
        with pytest.raises(kind) as caught:
            here.create(self.wanted())
        told = f"{caught.value} {caught.value.facts}"
        planted = [text for text in cloud.access.values() if "planted" in text or len(text) > 100]
        wrong = [text for text in keys.values() if text.startswith("a-wrong")]
        assert planted and words in told and not any(text in told for text in [*planted, *wrong])
