"""Operations on files: bytes, arrays, images, sound, videos, tar archives."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Self

from streamgeo import links
from streamgeo.engine import Kernel
from streamgeo.errors import ChainError
from streamgeo.vocabulary import file_kernels as k
from streamgeo.vocabulary.base import Described, conditional, whole

PathLike = str | os.PathLike[str]
QUALITIES = ("sinc-fastest", "sinc-medium", "sinc-best", "zero-order-hold", "linear")


class Media(Described):
    """Files that a key names, or whose bytes it holds with ``from_memory=True``.

    A name is text or bytes, below ``prefix`` unless it is absolute. What is read replaces it, or goes to
    ``output_key``.
    """

    def load_file(self, key: str, prefix: PathLike = "", output_key: str = "") -> Self:
        """The bytes of a file, as int8."""
        f = partial(k.load_file, prefix=os.fspath(prefix))
        return self._apply("load_file", key, output_key, f, *_told(prefix))

    def load_numpy(
        self, key: str, prefix: PathLike = "", from_memory: bool = False, output_key: str = ""
    ) -> Self:
        """The array of a .npy file, of any dtype and order; pickled objects are refused."""
        f = partial(k.load_numpy, prefix=os.fspath(prefix), from_memory=bool(from_memory))
        return self._apply("load_numpy", key, output_key, f, os.fspath(prefix), bool(from_memory))

    def load_image(
        self,
        key: str,
        prefix: PathLike = "",
        info: bool = False,
        format: str = "RGB",
        from_memory: bool = False,
        output_key: str = "",
    ) -> Self:
        """An image by mlx-data's own reader, uint8 (height, width, channels); with ``info`` width and height."""
        options = {"info": bool(info), "format": format}
        return self._load("load_image", key, prefix, from_memory, output_key, options)

    def load_video(
        self,
        key: str,
        prefix: PathLike = "",
        info: bool = False,
        from_memory: bool = False,
        output_key: str = "",
    ) -> Self:
        """A video by mlx-data's own reader, uint8 (frames, height, width, channels).

        With ``info``: its width, height and number of frames.
        """
        return self._load("load_video", key, prefix, from_memory, output_key, {"info": bool(info)})

    def load_audio(
        self,
        key: str,
        prefix: PathLike = "",
        info: bool = False,
        from_memory: bool = False,
        info_type: Any = None,
        sample_rate: int = 0,
        resampling_quality: str = "sinc-fastest",
        info_key: str = "",
        output_key: str = "",
    ) -> Self:
        """Sound by mlx-data's own reader, float32 (frames, channels).

        Args:
            key: the file, or its bytes.
            prefix: the folder.
            info: read what ``info_type`` says instead.
            from_memory: the key holds the file's bytes.
            info_type: a ``LoadAudioInfo``: ``All`` (the default: frames, channels, rate), ``NumFrames``,
                ``NumChannels``, ``SampleRate``, ``NumSeconds``.
            sample_rate: the rate to resample to; 0 is that of the file.
            resampling_quality: "sinc-fastest", "sinc-medium", "sinc-best", "zero-order-hold" or "linear".
            info_key: where the information goes beside the sound.
            output_key: where the sound goes; by default it replaces the name.
        """
        options: dict[str, Any] = {
            "info": bool(info),
            "sample_rate": whole("load_audio", "sample_rate", sample_rate, 0),
            "resampling_quality": _quality("load_audio", resampling_quality),
            "info_key": info_key,
        }
        if info_type is not None:
            options["info_type"] = info_type
        return self._load("load_audio", key, prefix, from_memory, output_key, options)

    def resample_audio(
        self,
        key: str,
        sample_rate: int,
        input_sample_rate: int = 0,
        info_key: str = "",
        resampling_quality: str = "sinc-fastest",
        output_key: str = "",
    ) -> Self:
        """Sound (float32, (frames, channels)) at another rate.

        The rate that it has is ``input_sample_rate``, or stands under ``info_key`` (the rate alone, or what
        ``load_audio`` put there).
        """
        if not info_key and not input_sample_rate:
            raise ChainError(
                "resample_audio: give input_sample_rate, or info_key where load_audio put its info"
            )
        options: dict[str, Any] = {
            "sample_rate": whole("resample_audio", "sample_rate", sample_rate, 1),
            "input_sample_rate": whole("resample_audio", "input_sample_rate", input_sample_rate, 0),
            "info_key": info_key,
            "resampling_quality": _quality("resample_audio", resampling_quality),
        }
        output = output_key or key
        kernel = Kernel("resample_audio", {"key": key, "output_key": output_key, **options})
        f = partial(k.resampled, kernel=kernel, key=key, info_key=info_key, output=output)
        keys = (key, info_key) if info_key else (key,)
        shown = _shown("resample_audio", key, options, output_key)
        change = partial(links.on_sample, f=f, keys=keys, operation="resample_audio")
        return self._with(links.Apply(self.node, change, shown, (output,)))

    def save_image(self, key: str, filename_key: str, prefix: PathLike, filenamePrefix: str = "") -> Self:
        """Write an image (uint8) as JPEG to the file that ``filename_key`` names, as it comes by.

        The file is ``filenamePrefix`` followed by that name, below ``prefix``, and ends in ``.jpg`` whatever the
        name ends in. The sample stays as it is.
        """
        folder = os.fspath(prefix)
        arguments = {
            "key": key,
            "filename_key": filename_key,
            "prefix": "",
        }
        f = partial(
            k.saved,
            kernel=Kernel("save_image", arguments),
            key=key,
            filename_key=filename_key,
            prefix=folder,
            name_prefix=filenamePrefix,
        )
        shown = f".save_image({key!r}, {filename_key!r}, {folder!r}, {filenamePrefix!r})"
        change = partial(links.on_sample, f=f, keys=(key, filename_key), operation="save_image")
        return self._with(links.Apply(self.node, change, shown, ()))

    def read_from_tar(
        self,
        tarkey: PathLike,
        ikey: str,
        okey: str,
        prefix: PathLike = "",
        tar_prefix: PathLike = "",
        from_key: bool = False,
        file_fetcher: Any = None,
        nested: bool = False,
        num_threads: int = 1,
    ) -> Self:
        """A file from a tar archive, as uint8. The archive is indexed once, when it is first used.

        Args:
            tarkey: the archive, or with ``from_key`` the key that names it.
            ikey: the key that names the file in the archive.
            okey: where the bytes go.
            prefix: put before the name in the archive.
            tar_prefix: the folder of the archive.
            from_key: whether ``tarkey`` is a key.
            file_fetcher: one of mlx-data's, for archives elsewhere.
            nested: whether archives in the archive are opened too.
            num_threads: how many threads index nested archives.
        """
        tar, folder = os.fspath(tarkey), os.fspath(tar_prefix)
        options = {
            "prefix": os.fspath(prefix),
            "tar_prefix": folder,
            "from_key": bool(from_key),
            "nested": bool(nested),
            "num_threads": whole("read_from_tar", "num_threads", num_threads, 1),
        }
        arguments = {"tarkey": tar, "ikey": ikey, "okey": okey, "file_fetcher": file_fetcher, **options}
        kernel, own = Kernel("read_from_tar", arguments), file_fetcher is None
        f = partial(
            k.from_tar,
            kernel=kernel,
            tar=tar,
            tar_prefix=folder,
            from_key=from_key,
            own=own,
            ikey=ikey,
            okey=okey,
        )
        shown = _shown("read_from_tar", tar, {"ikey": ikey, "okey": okey, **options})
        change = partial(
            links.on_sample, f=f, keys=(ikey, tar) if from_key else (ikey,), operation="read_from_tar"
        )
        return self._with(links.Apply(self.node, change, shown, (okey,)))

    def _load(
        self,
        name: str,
        key: str,
        prefix: PathLike,
        from_memory: bool,
        output_key: str,
        options: dict[str, Any],
    ) -> Self:
        arguments = {"key": key, "from_memory": bool(from_memory), "output_key": output_key, **options}
        outputs = tuple(k for k in (output_key or key, options.get("info_key")) if k)
        f = partial(
            k.loaded,
            kernel=Kernel(name, arguments),
            key=key,
            prefix=os.fspath(prefix),
            from_memory=bool(from_memory),
            outputs=outputs,
        )
        told = {"prefix": os.fspath(prefix), "from_memory": bool(from_memory), **options}
        change = partial(links.on_sample, f=f, keys=(key,), operation=name)
        return self._with(links.Apply(self.node, change, _shown(name, key, told, output_key), outputs))

    load_file_if = conditional(load_file)
    load_numpy_if = conditional(load_numpy)
    load_image_if = conditional(load_image)
    load_video_if = conditional(load_video)
    load_audio_if = conditional(load_audio)
    resample_audio_if = conditional(resample_audio)
    save_image_if = conditional(save_image)
    read_from_tar_if = conditional(read_from_tar)


def _told(prefix: PathLike) -> list[str]:
    return [os.fspath(prefix)] if os.fspath(prefix) else []


def _shown(name: str, key: str, options: dict[str, Any], output_key: str = "") -> str:
    told = {**options, "output_key": output_key}
    rest = "".join(f", {option}={value!r}" for option, value in told.items() if value not in ("", False, 0))
    return f".{name}({key!r}{rest})"


def _quality(operation: str, quality: str) -> str:
    if quality not in QUALITIES:
        raise ChainError(f"{operation}: resampling_quality={quality!r} must be one of {QUALITIES}")
    return quality
