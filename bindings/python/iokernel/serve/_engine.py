from .._native import accelerator
StartBase=accelerator.Start; WsgiBase=accelerator.Wsgi; step_done=accelerator.serving()
CycleBase=accelerator.Cycle; AsgiBase=accelerator.Asgi; Resumed=accelerator.Resumed
