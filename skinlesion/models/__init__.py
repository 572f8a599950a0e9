"""What is trained: backbone, soft attention, metadata branch, classifier. Plain torch."""
