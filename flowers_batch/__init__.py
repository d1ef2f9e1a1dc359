"""Labels a photo archive of any size.

    import flowers_batch as fb

    fb.encode("photos", "run/codes", fb.EncodeConfig(weights="random:0"))
    metrics = fb.train("run/codes", "run/model", fb.TrainConfig(("folder",)))
    fb.predict("archive", "run/predictions", "run/model")
    fb.report("run/predictions")
    assert fb.verify("run/predictions").is_complete

Everything is imported when it is first used, so that importing the package takes no time.
"""

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
