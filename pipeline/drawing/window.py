"""Shows frames in a window while an episode is played."""

import os
from typing import Any

from PIL import Image

from matwm.errors import UserError
from pipeline.drawing.film import LAST_FRAME_SECONDS


class Window:
    """A window of pygame's, which MPE2 needs anyway. Escape, q or its button close it."""

    def __init__(self, fps: float, title: str) -> None:
        """Open no window yet: its size is the first frame's."""
        self._fps, self._title = fps, title
        self._surface: Any = None
        self.is_closed = False

    def show(self, frame: Image.Image, *, is_last: bool) -> None:
        """Show a frame for its time.

        Raises:
            UserError: no window can be opened here.
        """
        import pygame

        self._surface = self._surface or self._opened(frame.size)
        self._surface.blit(pygame.image.frombytes(frame.tobytes(), frame.size, "RGB"), (0, 0))
        pygame.display.flip()
        end = pygame.time.get_ticks() + 1000 * (1 / self._fps + is_last * LAST_FRAME_SECONDS)
        while not self.is_closed and pygame.time.get_ticks() < end:
            for event in pygame.event.get():
                closes = event.type == pygame.KEYDOWN and event.key in (pygame.K_ESCAPE, pygame.K_q)
                self.is_closed |= closes or event.type == pygame.QUIT
            pygame.time.wait(5)

    def finish(self) -> bytes:
        """Close the window; there is no file."""
        import pygame

        pygame.display.quit()
        return b""

    def _opened(self, size: tuple[int, int]) -> Any:
        import pygame

        try:
            pygame.display.init()
            if pygame.display.get_driver() == "offscreen" != os.environ.get("SDL_VIDEODRIVER"):
                raise pygame.error("there is no display")  # SDL would draw where nobody looks
            pygame.display.set_caption(self._title)
            return pygame.display.set_mode(size)
        except pygame.error as error:
            raise UserError(f"no window can be opened here ({error}): use --gif or --mp4") from None
