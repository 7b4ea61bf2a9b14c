"""The frames of videos among the files of a source: folders of pictures, and video files."""

from __future__ import annotations

from pathlib import PurePosixPath

from finemesh.data.frames import VIDEO_SUFFIXES, FolderFrames, Frames, VideoFrames, numbered_pictures
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.masklets import Video, rendered_frames


class FrameFiles:
    """Looked through once, however many videos there are."""

    def __init__(self, context: ReadContext) -> None:
        self._context = context
        self._by_folder: dict[str, list[str]] = {}
        self._folders: dict[str, list[str]] = {}
        self._videos: dict[str, list[str]] = {}
        for name in context.source.names:
            self._by_folder.setdefault(name.rpartition("/")[0], []).append(name)
            if name.lower().endswith(VIDEO_SUFFIXES):
                self._videos.setdefault(PurePosixPath(name).stem, []).append(name)
        for folder in self._by_folder:
            self._folders.setdefault(folder.rpartition("/")[2], []).append(folder)

    def numbered(self, folder: str) -> dict[int, str]:
        """The pictures of a folder by the last number in their name."""
        return numbered_pictures(self._by_folder.get(folder, []))

    def beside(self, video: Video) -> Frames:
        """A folder of pictures named after the video, else a video file named after it, else rendered frames.
        Of several, that nearest to the annotations.
        """
        limit = self._context.options.max_image_pixels
        folders = [each for each in self._folders.get(video.video_id, []) if self.numbered(each)]
        if folders:
            by_number = self.numbered(self._nearest(video, folders))
            # Numbered like the video's frames, or one by one where only the annotated ones were kept.
            stride = video.stride if max(by_number) >= len(video.frames) else 1
            return FolderFrames(self._context.source, by_number, stride, limit)
        if files := self._videos.get(video.video_id):
            return VideoFrames(self._context.source, self._nearest(video, files), video.stride, limit)
        return rendered_frames(self._context, video)

    def _nearest(self, video: Video, paths: list[str]) -> str:
        """The path that shares most folders with the file of the annotations."""
        own = {*PurePosixPath(video.file).parents}
        shared = {path: len(own.intersection(PurePosixPath(path).parents)) for path in paths}
        nearest = [path for path, folders in shared.items() if folders == max(shared.values())]
        if len(nearest) > 1:
            listed = " or ".join(nearest[:4])
            self._context.warn(f"the frames of {video.file} may be {listed}: the first was read")
        return nearest[0]
