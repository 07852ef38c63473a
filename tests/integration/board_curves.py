"""Reads what runs leave for TensorBoard, with its own reader."""

from pathlib import Path

from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator


class Curves:
    """The runs below a folder, as TensorBoard reads them."""

    def __init__(self, folder: Path) -> None:
        files = {path.parent for path in folder.rglob("*tfevents*")}
        guidance = {"scalars": 0, "images": 0, "histograms": 0, "text": 0, "tensors": 0}
        self.runs = {
            path.relative_to(folder).as_posix(): EventAccumulator(
                str(path), size_guidance=guidance, tensor_size_guidance=guidance
            )
            for path in files
        }
        for run in self.runs.values():
            run.Reload()

    def tags(self, run: str, plugin: str) -> set[str]:
        return set(self.runs[run].PluginTagToContent(plugin))

    def values(self, run: str, tag: str) -> dict[int, float]:
        return {event.step: float(event.tensor_proto.float_val[0]) for event in self.runs[run].Tensors(tag)}

    def points(self, run: str, tag: str) -> list[tuple[int, float]]:
        return [(event.step, float(event.tensor_proto.float_val[0])) for event in self.runs[run].Tensors(tag)]

    def strings(self, run: str, tag: str) -> list[bytes]:
        return list(self.runs[run].Tensors(tag)[-1].tensor_proto.string_val)

    def all_tags(self) -> set[str]:
        return {tag for run in self.runs.values() for tag in run.Tags()["tensors"]}
