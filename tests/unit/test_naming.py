"""Names of files for whatever tasks are called."""

from hypothesis import example, given
from hypothesis import strategies as st

from rlctl.executors.naming import file_name

names = st.text(st.sampled_from("ab./%~_0\0F2é"), max_size=8) | st.text(max_size=400)


@given(names, names)
@example("a/b", "a%2Fb")
@example("x" * 300, "x" * 301)
def test_different_names_stay_different_and_can_be_files(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)
    assert not file_name(one).startswith(".")
    assert not set("/\0") & set(file_name(one))
    assert len(file_name(one).encode(errors="surrogatepass")) <= 200


@given(st.from_regex(r"[A-Za-z0-9_#-][A-Za-z0-9_.# -]{0,100}", fullmatch=True))
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert file_name(name) == name
