"""Google's persistent disks, through google-cloud-compute."""
