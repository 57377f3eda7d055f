"""What a picture shows of its one face: landmarks and the aligned crop, age and gender, head pose, quality.

Pure functions on arrays; `embedder` runs the models between them.

    Image ──landmarks──▶ Landmarks ─┐
    a caller's points ──given───────┴──geometry.align──▶ Crop
"""
