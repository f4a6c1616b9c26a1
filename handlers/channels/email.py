"""E-mail, by SMTP.

Owns: the message, and how the server is spoken to. It has a Message-ID made of the notification's id, so that a
repetition can be told. smtplib waits, so it does so in a thread; every step has a timeout.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Literal

import msgspec
import structlog

from handlers.channels import NotAccepted
from pipeline.core.alert_message import Notification

STEP_SECONDS = 10.0
Security = Literal["starttls", "tls", "none"]

log = structlog.get_logger("pgreflex.notify")


class Server(msgspec.Struct, frozen=True):
    """Where mail is handed in. security: `starttls` is asked for and required, `tls` from the first byte."""

    host: str
    port: int
    security: Security = "starttls"
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Server({self.host}:{self.port})"


class Email:
    """Mails to `to`."""

    kind = "email"

    def __init__(self, server: Server, *, sender: str, to: Sequence[str]) -> None:
        self._server = server
        self._sender = sender
        self._to = list(to)

    async def send(self, notification: Notification) -> None:
        await asyncio.to_thread(self._hand_in, self._message(notification))

    def _message(self, notification: Notification) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"] = self._sender, ", ".join(self._to)
        mail["Subject"] = " ".join(notification.title.split())  # a line break would begin another header
        mail["Date"] = format_datetime(datetime.fromtimestamp(notification.at, UTC))
        mail["Message-ID"] = f"<{notification.id}@pgreflex>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(notification.text)
        return mail

    def _hand_in(self, mail: EmailMessage) -> None:
        server = self._server
        try:
            smtp = self._connected()
            try:
                if server.user is not None:
                    smtp.login(server.user, server.password or "")
                refused = smtp.send_message(mail, self._sender, self._to)
            finally:
                with suppress(smtplib.SMTPException, OSError):  # what was accepted stays so
                    smtp.quit()
                smtp.close()
            if refused:  # the others have it: to try again would tell them twice
                log.warning("the mail server refused some recipients", count=len(refused))
        except smtplib.SMTPAuthenticationError as error:
            raise NotAccepted(f"the mail server refused the login ({error.smtp_code})", permanent=True) from None
        except smtplib.SMTPRecipientsRefused as error:
            codes = sorted({code for code, _text in error.recipients.values()})
            permanent = all(code >= 500 for code in codes)
            raise NotAccepted(f"the mail server refused the recipients {codes}", permanent=permanent) from None
        except smtplib.SMTPResponseException as error:
            reason = f"the mail server answered {error.smtp_code}"
            raise NotAccepted(reason, permanent=error.smtp_code >= 500) from None
        except smtplib.SMTPNotSupportedError:
            raise NotAccepted("the mail server does not offer what is required", permanent=True) from None
        except ssl.SSLCertVerificationError:
            raise NotAccepted("the mail server's certificate is not to be trusted", permanent=True) from None
        except (smtplib.SMTPException, OSError) as error:
            raise NotAccepted(f"the mail server cannot be reached: {type(error).__name__}") from None

    def _connected(self) -> smtplib.SMTP:
        server, context = self._server, ssl.create_default_context()
        if server.security == "tls":
            return smtplib.SMTP_SSL(server.host, server.port, timeout=STEP_SECONDS, context=context)
        smtp = smtplib.SMTP(server.host, server.port, timeout=STEP_SECONDS)
        if server.security == "starttls":
            try:
                smtp.starttls(context=context)
            except BaseException:
                smtp.close()
                raise
        return smtp
