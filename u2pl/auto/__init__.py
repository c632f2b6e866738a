"""From a folder of pictures and some masks to an answer: what was understood, what is trained, what came out."""
