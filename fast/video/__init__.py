"""Painting videos: frame by frame, steadily, with their sound."""

from fast.video.painting import CRF, check_video_settings, paint_video, paint_videos
from fast.video.parts import folder_for, has_parts
from fast.video.steadiness import MAX_STEADINESS, Steadiness

__all__ = [
    "CRF",
    "MAX_STEADINESS",
    "Steadiness",
    "check_video_settings",
    "folder_for",
    "has_parts",
    "paint_video",
    "paint_videos",
]
