"""The offline job: an emulated accelerator, pictures by the thousand, and what the job makes of both."""
