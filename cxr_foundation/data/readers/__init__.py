"""One file per published data set; `data.reading` finds them. To add one, add a file."""
