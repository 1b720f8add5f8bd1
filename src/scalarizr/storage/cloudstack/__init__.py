"""CloudStack's volumes, through cs."""
