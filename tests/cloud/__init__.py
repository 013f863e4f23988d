"""A simulated cloud: RunPod, Vast and Brev on loopback, with machines in namespaces and a bill of its own."""
