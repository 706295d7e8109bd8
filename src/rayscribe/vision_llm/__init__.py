"""Vision language models that others trained, adapted to chest X-rays: adapters, plan, training, generation."""

import logging

# It asks for a kernel package that only 4-bit weights on a CPU would use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
