"""The release side of firmroot: metadata, signing, storage, publishing, reporting, commands."""
