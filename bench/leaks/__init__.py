"""What plain SkyPilot leaves billing, row by row, and what we leave, on the same simulated cloud, faults and all."""
