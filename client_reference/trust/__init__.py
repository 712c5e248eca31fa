"""What the device believes: the TUF workflow, time, and the durable state of both."""
