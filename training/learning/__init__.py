"""How packlight-tiny learns from drawn pictures. No part of what serves."""
