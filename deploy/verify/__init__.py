"""Programs of `deploy/verify.sh`: they run beside a real container engine."""
