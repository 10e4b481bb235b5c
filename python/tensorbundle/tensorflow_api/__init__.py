# SPDX-License-Identifier: Apache-2.0
"""What the stand-in for TensorFlow offers: the part of TensorFlow's API that reads checkpoints.

``names`` lists it, by the modules of TensorFlow; ``tensorbundle.stand_in`` makes them importable.
"""
