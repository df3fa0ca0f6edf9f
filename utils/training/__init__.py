"""What every training needs: a step, its state, its log, and how it stops."""
