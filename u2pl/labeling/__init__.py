"""The loop with the people who label: which images next, masks to start from, corrected masks back."""
