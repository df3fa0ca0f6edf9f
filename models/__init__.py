"""METHODS: name -> module with build, TrainStep and segment_video. The only registry."""
from models import vipmt

METHODS = {"vipmt": vipmt}
