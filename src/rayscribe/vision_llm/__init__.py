"""Vision language models that others trained, adapted to chest X-rays: adapters, plan, training, generation."""
