"""What several rooms need and none owns: folders of results, the screen, threads, figures, the citation."""
