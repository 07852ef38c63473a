"""Fourier transforms of length 32 for 8 or 16 films at once, written straight into LLVM's vector instructions.

LLVM unrolls loops over the lanes before it can turn them into vector instructions, and then does not; a transform so
compiled takes eight times as long. So each transform is emitted here as straight-line code on vectors of ``LANES``
numbers: Python lists hold the vectors, Python loops write the butterflies, and Numba calls the result like a function
of its own.

Layout: flat float32 arrays; number ``n`` of lane ``q`` is element ``n * LANES + q``. A spectrum is [kx, ky, lane] with
17 kx, a field [y, x, lane].
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

GRID = 32
HALF = GRID // 2 + 1
LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Films that fill one vector register; twice as many would be moved between registers and memory most of the time."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_Complex = tuple[Any, Any]


class _Writer:
    """Emits loads, stores and arithmetic of vectors at one place of the program."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.builder = builder
        self.data = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, args, strict=True)
        ]

    def constant(self, value: float) -> Any:
        return ir.Constant(_VECTOR, [float(value)] * LANES)

    def _pointer(self, array: int, start: Any, number: int) -> Any:
        b = self.builder
        index = b.add(start, ir.Constant(start.type, number * LANES))
        return b.bitcast(b.gep(self.data[array], [index]), _VECTOR.as_pointer())

    def load(self, array: int, start: Any, number: int) -> Any:
        instruction = self.builder.load(self._pointer(array, start, number))
        instruction.align = 4
        return instruction

    def store(self, value: Any, array: int, start: Any, number: int) -> None:
        instruction = self.builder.store(value, self._pointer(array, start, number))
        instruction.align = 4

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b)

    def mul(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)

    def scaled(self, value: float, a: Any) -> Any:
        return self.builder.fmul(self.constant(value), a)

    def turn(self, z: _Complex, power: int, length: int, sign: int) -> _Complex:
        """``z exp(sign 2 pi i power / length)``, without multiplications where there need be none."""
        re, im = z
        if power == 0:
            return z
        if 4 * power == length:
            zero = self.constant(-0.0)
            return (self.sub(zero, im), re) if sign > 0 else (im, self.sub(zero, re))
        angle = sign * 2.0 * math.pi * power / length
        c, s = math.cos(angle), math.sin(angle)
        return (
            self.sub(self.scaled(c, re), self.scaled(s, im)),
            self.add(self.scaled(s, re), self.scaled(c, im)),
        )

    def fourier(self, z: list[_Complex], sign: int) -> list[_Complex]:
        """``sum_n z[n] exp(sign 2 pi i n k / N)`` (Cooley and Tukey 1965, factor 2)."""
        length = len(z)
        if length == 1:
            return z
        even, odd = self.fourier(z[0::2], sign), self.fourier(z[1::2], sign)
        low, high = [], []
        for k, (e, o) in enumerate(zip(even, odd, strict=True)):
            t = self.turn(o, k, length, sign)
            low.append((self.add(e[0], t[0]), self.add(e[1], t[1])))
            high.append((self.sub(e[0], t[0]), self.sub(e[1], t[1])))
        return low + high

    def rows_to_spectrum(self, rows: list[_Complex], re: int, im: int, start: Any) -> None:
        """Two real rows as (first, second) -> their 17 wavenumbers, at [k, j] and [k, j + 1]."""
        z = self.fourier(rows, -1)
        for k in range(HALF):
            (pr, pi), (mr, mi) = z[k], z[-k % GRID]
            place = k * GRID
            self.store(self.scaled(0.5, self.add(pr, mr)), re, start, place)
            self.store(self.scaled(0.5, self.sub(pi, mi)), im, start, place)
            self.store(self.scaled(0.5, self.add(pi, mi)), re, start, place + 1)
            self.store(self.scaled(0.5, self.sub(mr, pr)), im, start, place + 1)

    def spectrum_to_rows(self, re: int, im: int, start: Any) -> list[_Complex]:
        """The inverse: two real rows, as real and imaginary parts."""
        z: list[_Complex] = [(None, None)] * GRID
        for k in range(HALF):
            place = k * GRID
            ar, ai = self.load(re, start, place), self.load(im, start, place)
            br, bi = self.load(re, start, place + 1), self.load(im, start, place + 1)
            z[k] = (self.sub(ar, bi), self.add(ai, br))
            if 0 < k < HALF - 1:
                z[GRID - k] = (self.add(ar, bi), self.sub(br, ai))
        return self.fourier(z, +1)


def _column(sign: int) -> Any:
    def typed(typing: Any, xr: Any, xi: Any, yr: Any, yi: Any, start: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            w = _Writer(context, builder, signature, args)
            at = w.data[4]
            for n, (re, im) in enumerate(w.fourier([(w.load(0, at, n), w.load(1, at, n)) for n in range(GRID)], sign)):
                w.store(re, 2, at, n)
                w.store(im, 3, at, n)
            return context.get_dummy_value()

        return types.void(xr, xi, yr, yi, types.intp), emit

    return typed


column_forward: Any = intrinsic(_column(-1))
column_backward: Any = intrinsic(_column(+1))


def _rows_cubed(typing: Any, re: Any, im: Any, start: Any, scale: Any) -> Any:
    """Two rows of a spectrum, replaced by the spectrum of ``scale`` times the cube of the field that they stand for."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        factor = ir.Constant(_VECTOR, ir.Undefined)
        for lane in range(LANES):
            factor = builder.insert_element(factor, w.data[3], ir.Constant(ir.IntType(32), lane))
        rows = w.spectrum_to_rows(0, 1, w.data[2])
        cubes = [(w.mul(w.mul(w.mul(a, a), a), factor), w.mul(w.mul(w.mul(b, b), b), factor)) for a, b in rows]
        w.rows_to_spectrum(cubes, 0, 1, w.data[2])
        return context.get_dummy_value()

    return types.void(re, im, types.intp, types.float32), emit


def _rows_forward(typing: Any, field: Any, row: Any, re: Any, im: Any, start: Any) -> Any:
    """Two rows of a field to two rows of a spectrum."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        at = w.data[1]
        w.rows_to_spectrum([(w.load(0, at, n), w.load(0, at, n + GRID)) for n in range(GRID)], 2, 3, w.data[4])
        return context.get_dummy_value()

    return types.void(field, types.intp, re, im, types.intp), emit


def _rows_backward(typing: Any, re: Any, im: Any, start: Any, field: Any, row: Any) -> Any:
    """Two rows of a spectrum to two rows of a field."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        for n, (a, b) in enumerate(w.spectrum_to_rows(0, 1, w.data[2])):
            w.store(a, 3, w.data[4], n)
            w.store(b, 3, w.data[4], n + GRID)
        return context.get_dummy_value()

    return types.void(re, im, types.intp, field, types.intp), emit


rows_cubed: Any = intrinsic(_rows_cubed)
rows_forward: Any = intrinsic(_rows_forward)
rows_backward: Any = intrinsic(_rows_backward)
