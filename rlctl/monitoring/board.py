"""TensorBoard event files, written without torch or TensorFlow."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from types import TracebackType

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

_PNG = b"\x89PNG\r\n\x1a\n"


class Board:
    """One event file in a folder; a later one in the same folder continues the curves.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Board(Path(folder)) as board:
    ...     board.scalar("films/good", 3, step=40)
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder), flush_secs=5)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """A point of a curve."""
        self._write(Summary.Value(tag=tag, simple_value=float(value)), step)

    def text(self, tag: str, text: str, step: int = 0) -> None:
        """A text in Markdown."""
        tensor = TensorProto(
            dtype=DT_STRING,
            string_val=[text.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._write(Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor), step)

    def image(self, tag: str, png: bytes, step: int) -> None:
        """A picture, as the bytes of a PNG file.

        Raises:
            ValueError: the bytes are no PNG.
        """
        if not png.startswith(_PNG):
            raise ValueError(f"{tag}: not a PNG")
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._write(Summary.Value(tag=tag, image=image), step)

    def close(self) -> None:
        """Write out what is buffered; may be called twice."""
        self._writer.close()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write(self, value: Summary.Value, step: int) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))
