"""OpenStack's volumes (Cinder) and servers (Nova), through openstacksdk."""
