"""Pretrained vision language models, adapted to chest X-rays: adapters, plan, training, generation."""

import logging

# It requests a kernel package that only 4-bit weights on a CPU would use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
