"""Measurements of the service: `questions` has one program per question, `lib` what several of them need."""
