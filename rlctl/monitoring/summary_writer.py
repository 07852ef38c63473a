"""Writes TensorBoard summaries with the tags of ``rlctl.monitoring.tags``, without torch or TensorFlow."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.custom_scalar.metadata import PLUGIN_NAME as CUSTOM_SCALARS
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from rlctl.monitoring.event_file import EventFile
from rlctl.monitoring.tags import LAYOUT, METRICS, TagKind, find, regex

_PNG = b"\x89PNG\r\n\x1a\n"
Leaf = bool | int | float | str


class SummaryWriter:
    """Writes one event file; later files in the same folder continue its curves.

    Args:
        since: step from which on this file replaces earlier ones; 0: all steps.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, SummaryWriter(Path(folder)) as board:
    ...     board.scalars({"machine/busy_cores": 3}, step=40)
    """

    def __init__(self, folder: Path, since: int = 0) -> None:
        self._file = EventFile(folder)
        self._described: set[str] = set()
        # TensorBoard respects a session start only if the file before has one too: so each file has one.
        start = SessionLog(status=SessionLog.SessionStatus.START)
        self._file.write(Event(wall_time=time.time(), step=since, session_log=start))

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Add points to several curves; skips values that are not finite numbers."""
        numbers = {tag: float(v) for tag, v in values.items() if isinstance(v, int | float | np.number | np.bool_)}
        points = [self._value(tag, TagKind.SCALAR, simple_value=v) for tag, v in numbers.items() if np.isfinite(v)]
        if points:
            self._write(points, step)

    def text(self, tag: str, text: str, step: int = 0) -> None:
        """Write a text in Markdown."""
        tensor = TensorProto(
            dtype=DT_STRING,
            string_val=[text.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        self._write([self._value(tag, TagKind.TEXT, tensor=tensor)], step)

    def image(self, tag: str, png: bytes, step: int) -> None:
        """Write a picture, the content of a PNG file."""
        if not png.startswith(_PNG):
            raise ValueError(f"{tag}: not a PNG")
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._write([self._value(tag, TagKind.IMAGE, image=image)], step)

    def histogram(self, tag: str, values: ArrayLike, step: int) -> None:
        """Write a histogram of the finite values, if any; integers within a range of 64 get a bar each."""
        numbers = np.asarray(values)
        numbers = numbers[np.isfinite(numbers)]
        if numbers.size == 0:
            return
        low, high = float(numbers.min()), float(numbers.max())
        whole = np.issubdtype(numbers.dtype, np.integer) and high - low < 64
        edges = np.arange(low - 0.5, high + 1.0) if whole else np.linspace(low, high if high > low else low + 1e-9, 31)
        counts, edges = np.histogram(numbers.astype(np.float64), edges)
        histo = HistogramProto(
            min=float(edges[0]),
            max=float(edges[-1]),
            num=numbers.size,
            sum=float(numbers.sum()),
            sum_squares=float(np.square(numbers, dtype=np.float64).sum()),
            bucket_limit=edges[1:].tolist(),
            bucket=counts.tolist(),
        )
        self._write([self._value(tag, TagKind.HISTOGRAM, histo=histo)], step)

    def layout(self) -> None:
        """Write the layout of the custom scalars page, by question."""
        categories = [
            layout_pb2.Category(
                title=question,
                chart=[
                    layout_pb2.Chart(
                        title=chart.title,
                        multiline=layout_pb2.MultilineChartContent(tag=[regex(tag) for tag in chart.tags]),
                    )
                    for chart in charts
                ],
            )
            for question, charts in LAYOUT.items()
        ]
        layout = layout_pb2.Layout(category=categories).SerializeToString()
        plugin = SummaryMetadata.PluginData(plugin_name=CUSTOM_SCALARS)
        tensor = TensorProto(dtype=DT_STRING, string_val=[layout], tensor_shape=TensorShapeProto())
        value = Summary.Value(tag=CONFIG_SUMMARY_TAG, metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)
        self._write([value], 0)

    def begin_session(self, hparams: Mapping[str, Leaf]) -> None:
        """Start the HParams session: a row with these hyperparameters and the metrics of ``tags.METRICS``."""
        infos = [api_pb2.HParamInfo(name=key, type=_type(value)) for key, value in hparams.items()]
        metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=tag) for tag in METRICS]
        experiment = api_pb2.Experiment(name="rlctl", hparam_infos=infos, metric_infos=metrics)
        start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
        for key, leaf in hparams.items():
            kind = {bool: "bool_value", str: "string_value"}.get(type(leaf), "number_value")
            setattr(start.hparams[key], kind, leaf)
        self._hparams(metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=experiment))
        self._hparams(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start))

    def end_session(self, succeeded: bool) -> None:
        """End the HParams session."""
        status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        self._hparams(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end))

    def close(self) -> None:
        """Write buffered events; may be called twice."""
        self._file.close()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _hparams(self, tag: str, data: plugin_data_pb2.HParamsPluginData) -> None:
        self._write([Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data))], 0)

    def _value(self, tag: str, kind: TagKind, **content: Any) -> Summary.Value:
        """A value; the first value of a tag carries its description."""
        if tag in self._described:
            return Summary.Value(tag=tag, **content)
        self._described.add(tag)
        entry = find(tag)
        described = SummaryMetadata(
            summary_description=entry.description if entry else "",
            plugin_data=SummaryMetadata.PluginData(plugin_name=kind.value),
        )
        return Summary.Value(tag=tag, metadata=described, **content)

    def _write(self, values: list[Summary.Value], step: int) -> None:
        self._file.write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))


def _type(value: Leaf) -> int:
    if isinstance(value, bool):
        return int(api_pb2.DATA_TYPE_BOOL)
    return int(api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64)
