"""Settings of this folder's tests."""

from pictures import _small_pictures as _small_pictures
from pictures import real_pictures as real_pictures
