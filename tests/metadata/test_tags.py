"""Tags come into sidecars and out of them again, and nothing else changes."""

from __future__ import annotations

import re

import pytest
from exiftool import change, fields_of, needs_exiftool
from hypothesis import given, settings
from hypothesis import strategies as st
from sidecar_samples import DARKTABLE, DIGIKAM, IMMICH, LIGHTROOM, SAMPLES

from flowers_batch.metadata.packet import parse
from flowers_batch.metadata.tags import Tag, record_of, with_tag
from flowers_batch.metadata.xmp import MalformedXmpError, read_keywords

OWL = Tag("animal/bird/owl", 0.97314, "model-1")
ROSE = Tag("rose", 0.5, "model-2")
FLAT = "XMP-dc:Subject"
PATHS = "XMP-lr:HierarchicalSubject"
TAGS = "XMP-digiKam:TagsList"


def tagged(sidecar: bytes | str | None, tag: Tag | None) -> bytes:
    content = sidecar.encode() if isinstance(sidecar, str) else sidecar
    result = with_tag(content, tag)
    assert result is not None
    return result


def values(sidecar: bytes, name: str) -> list[str]:
    packet = parse(sidecar)
    namespaces = {
        "dc": "http://purl.org/dc/elements/1.1/",
        "lr": "http://ns.adobe.com/lightroom/1.0/",
        "digiKam": "http://www.digikam.org/ns/1.0/",
    }
    prefix, _, local = name.partition(":")
    return list(packet.values(f"{{{namespaces[prefix]}}}{local}"))


def test_new_sidecar_has_the_label_in_every_list():
    sidecar = tagged(None, OWL)
    assert values(sidecar, "dc:subject") == ["animal", "bird", "owl"]
    assert values(sidecar, "lr:hierarchicalSubject") == ["animal|bird|owl"]
    assert values(sidecar, "digiKam:TagsList") == ["animal/bird/owl"]
    assert record_of(parse(sidecar)) == ("animal/bird/owl", "0.9731", "model-1")
    assert read_keywords(sidecar).given == ()


def test_class_without_levels_is_no_path():
    sidecar = tagged(None, ROSE)
    assert (values(sidecar, "dc:subject"), values(sidecar, "digiKam:TagsList")) == (["rose"], ["rose"])
    assert values(sidecar, "lr:hierarchicalSubject") == []


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_removing_a_tag_restores_every_byte(sample):
    with_owl = tagged(sample, OWL)
    assert tagged(with_owl, None) == sample.encode()
    assert tagged(tagged(with_owl, ROSE), None) == sample.encode()


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_second_time_and_other_model_change_exactly_ours(sample):
    with_owl = tagged(sample, OWL)
    assert with_tag(with_owl, OWL) is with_owl
    assert tagged(with_owl, ROSE) == tagged(sample, ROSE)
    assert read_keywords(with_owl).given == read_keywords(sample.encode()).given
    assert "owl" in read_keywords(with_owl).ours


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_tagged_text_is_the_old_text_with_insertions(sample):
    pattern = ".*?".join(map(re.escape, sample))
    assert re.fullmatch(pattern, tagged(sample, OWL).decode(), re.DOTALL)


def test_list_of_others_is_added_to_in_its_own_form():
    text = tagged(LIGHTROOM, OWL).decode()
    assert "     <rdf:li>summer &amp; sun</rdf:li>\n     <rdf:li>animal</rdf:li>\n     <rdf:li>bird</rdf:li>" in text
    assert text.count("<dc:subject>") == text.count("<lr:hierarchicalSubject>") == 1
    assert values(tagged(DIGIKAM, ROSE), "lr:hierarchicalSubject") == ["People|J\u00fcrgen", "rose"]


def test_new_list_has_the_keywords_of_others_too():
    """Programs that read this list alone, such as darktable and Immich, must not lose them."""
    assert values(tagged(DARKTABLE, OWL), "lr:hierarchicalSubject") == ["holiday", "animal|bird|owl"]
    assert values(tagged(LIGHTROOM, OWL), "digiKam:TagsList") == ["summer & sun", "place/garden", "animal/bird/owl"]
    added = tagged(DARKTABLE, OWL).replace(
        b"animal|bird|owl</rdf:li>", b"animal|bird|owl</rdf:li><rdf:li>mine</rdf:li>"
    )
    assert values(tagged(added, None), "lr:hierarchicalSubject") == ["mine"]


def test_keywords_may_come_in_another_order_from_a_new_list():
    one_list = IMMICH.replace("People/Marie", "places</rdf:li><rdf:li>places/Rome")
    assert read_keywords(one_list.encode()).given[:2] == ("places", "places/Rome")
    with_owl = tagged(one_list, OWL)
    assert values(with_owl, "lr:hierarchicalSubject")[0] == "places|Rome"  # `places` is a level of it
    assert tagged(with_owl, None) == one_list.encode()


def test_keyword_that_a_person_gave_stays_theirs():
    sidecar = tagged(IMMICH, Tag("Physics", 0.9, "m"))
    assert read_keywords(sidecar).ours == ()
    assert values(sidecar, "digiKam:TagsList") == ["People/Marie", "Physics"]
    assert tagged(sidecar, None) == IMMICH.encode()


def test_copies_that_programs_made_of_ours_go_too():
    copied = tagged(DIGIKAM, OWL).replace(
        b"</rdf:li>\n    </rdf:Bag>\n   </MicrosoftPhoto:LastKeywordXMP>",
        b"</rdf:li>\n     <rdf:li>animal/bird/owl</rdf:li>\n    </rdf:Bag>\n   </MicrosoftPhoto:LastKeywordXMP>",
    )
    assert copied != tagged(DIGIKAM, OWL)
    assert tagged(copied, None) == DIGIKAM.encode()


def test_sidecar_of_ours_is_deleted_unless_others_added_to_it():
    ours = tagged(None, OWL)
    assert with_tag(ours, None) is None
    assert with_tag(tagged(ours, ROSE), None) is None
    rated = ours.replace(b'rdf:about=""', b'rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="3"')
    assert b'xmp:Rating="3"' in tagged(rated, None)
    assert read_keywords(tagged(rated, None)).ours == ()
    noted = ours.replace(
        b"<rdf:li>owl</rdf:li></rdf:Bag></dc", b"<rdf:li>owl</rdf:li><rdf:li>me</rdf:li></rdf:Bag></dc"
    )
    assert values(tagged(noted, None), "dc:subject") == ["me"]


def test_empty_sidecar_of_others_is_kept():
    empty = LIGHTROOM[: LIGHTROOM.index("  <rdf:Desc")] + LIGHTROOM[LIGHTROOM.index(" </rdf:RDF") :]
    assert tagged(tagged(empty, OWL), None) == empty.encode()


def test_record_as_attributes_is_ours_as_well():
    """Exiv2, which digiKam and darktable write with, makes attributes of properties without lists."""
    sidecar = tagged(LIGHTROOM, ROSE).decode()
    record = re.compile(r"\s*<flowersBatch:(Label|Probability|Model)>([^<]*)</[^>]*>")
    attributes = " ".join(f'flowersBatch:{name}="{value}"' for name, value in record.findall(sidecar))
    rewritten = record.sub("", sidecar).replace(
        'rdf:about=""', f'rdf:about="" xmlns:flowersBatch="urn:flowers-batch:xmp:1/" {attributes}', 1
    )
    assert with_tag(rewritten.encode(), ROSE) == rewritten.encode()
    assert b"flowersBatch" not in tagged(rewritten, None)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_encoding_and_byte_order_mark_stay(encoding):
    sample = ("\ufeff" + LIGHTROOM).encode(encoding)
    assert tagged(tagged(sample, OWL), None) == sample
    assert read_keywords(tagged(sample, OWL)).given == read_keywords(sample).given


@pytest.mark.parametrize("form", ["<dc:subject>one, two</dc:subject>", '<dc:subject rdf:resource="urn:x"/>'])
def test_keywords_that_are_no_list_are_refused(form):
    sidecar = re.sub(r"<dc:subject>.*</dc:subject>", form, LIGHTROOM, flags=re.DOTALL)
    with pytest.raises(MalformedXmpError, match="dc:subject is not a list"):
        with_tag(sidecar.encode(), OWL)


def test_keyword_of_ours_that_is_no_item_is_refused():
    sidecar = re.sub(rb"<dc:subject>.*</dc:subject>", b"<dc:subject>rose</dc:subject>", tagged(None, ROSE))
    for tag in (OWL, None):
        with pytest.raises(MalformedXmpError):
            with_tag(sidecar, tag)


@pytest.mark.parametrize("label", ["", "/", "a\x00b", "a\ud800", " / "])
def test_label_that_xml_cannot_have_is_not_writable(label):
    assert not Tag(label, 1.0, "m").is_writable


_TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=12)
_LISTS = st.lists(_TEXTS, max_size=4)


@settings(max_examples=30, deadline=None)
@given(_LISTS, _LISTS, _LISTS, _TEXTS.filter(lambda label: Tag(label, 1, "m").is_writable))
def test_any_keywords_of_others_survive_any_label(flat, paths, tags, label):
    def listed(name: str, words: list[str]) -> str:
        items = "".join(
            f"<rdf:li>{word.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}</rdf:li>" for word in words
        )
        return f"<{name}><rdf:Bag>{items}</rdf:Bag></{name}>" if words else ""

    lists = listed("dc:subject", flat) + listed("lr:hierarchicalSubject", paths) + listed("digiKam:TagsList", tags)
    sample = DIGIKAM[: DIGIKAM.index("   <digiKam:TagsList>")] + lists + DIGIKAM[DIGIKAM.index("   <dc:title>") :]
    before = read_keywords(sample.encode())
    with_label = tagged(sample, Tag(label, 0.5, "m"))
    assert read_keywords(with_label).given == before.given
    assert tagged(with_label, None) == sample.encode()
    assert tagged(tagged(with_label, OWL), None) == sample.encode()


@needs_exiftool
def test_exiftool_sees_ours_and_every_other_field_unchanged(tmp_path):
    """In one call, since each takes a third of a second."""
    names = ["Lightroom", "darktable", "digiKam", "Immich"]
    for number, name in enumerate(names):
        (tmp_path / f"{number}-before.xmp").write_bytes(SAMPLES[name].encode())
        (tmp_path / f"{number}-after.xmp").write_bytes(tagged(SAMPLES[name], OWL))
    files = [tmp_path / f"{number}-{when}.xmp" for number in range(len(names)) for when in ("before", "after")]
    fields = fields_of(*files)
    ours = {"animal", "bird", "owl", "animal|bird|owl", "animal/bird/owl"}
    for before, after in zip(fields[::2], fields[1::2], strict=True):
        assert after["XMP-flowersBatch:Label"] == "animal/bird/owl"
        assert ours <= {*after[FLAT], *after[PATHS], *after[TAGS]}
        for name in (FLAT, PATHS, TAGS):
            added = after.pop(name)
            given = before.pop(name, [])
            assert added[: len(given)] == given
        assert {name: value for name, value in after.items() if "flowersBatch" not in name} == before


@needs_exiftool
def test_what_exiftool_adds_to_our_sidecar_is_kept(tmp_path):
    """It writes the whole file in its own order, with a description for each namespace."""
    file = tmp_path / "a.xmp"
    file.write_bytes(tagged(None, OWL))
    change("-XMP-xmp:Rating=4", "-XMP-dc:Subject+=mine", file)
    assert with_tag(file.read_bytes(), OWL) == file.read_bytes()
    file.write_bytes(tagged(file.read_bytes(), None))
    (fields,) = fields_of(file)
    assert {name: value for name, value in fields.items() if name != "XMP-x:XMPToolkit"} == {
        "XMP-xmp:Rating": 4,
        "XMP-dc:Subject": ["mine"],
    }
